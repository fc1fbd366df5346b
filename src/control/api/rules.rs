//! Whom the API answers: hosts, keys and certificates, which a reload replaces.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use super::gate::Hosts;
use crate::access::{ApiKeys, Products};
use crate::config::Config;
use tickring_tls::rustls::ServerConfig;
use tickring_tls::rustls::server::danger::ClientCertVerifier;

/// The rules in force. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::control) struct Rules {
    /// On which the API listens.
    address: IpAddr,
    in_force: Arc<RwLock<InForce>>,
    tls: Arc<RwLock<Tls>>,
}

/// TLS of new connections, if it is spoken, and what checks the certificates of clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) config: Option<Arc<ServerConfig>>,
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// Those of one request.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) hosts: Hosts,
    pub(super) keys: Arc<ApiKeys>,
    pub(super) products: Arc<Products>,
    /// A client's certificate counts in place of a key.
    pub(super) asks_for_certificates: bool,
}

impl Rules {
    /// For a port on `address`; without TLS.
    pub(in crate::control) fn new(address: IpAddr, config: &Config) -> Self {
        Self {
            address,
            in_force: Arc::new(RwLock::new(InForce::new(address, config))),
            tls: Arc::default(),
        }
    }

    /// From the next request on these count.
    pub(in crate::control) fn set(&self, config: &Config) {
        let next = InForce::new(self.address, config);
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// From the next connection on TLS is like this, or there is none. The certificates of clients count if `clients` accepts
    /// them, on open connections as well.
    pub(in crate::control) fn set_tls(
        &self,
        config: Option<Arc<ServerConfig>>,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) {
        let tls = Tls { config, clients };
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// TLS of the next connection.
    pub(super) fn tls(&self) -> Tls {
        self.tls
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What counts now.
    pub(super) fn now(&self) -> InForce {
        self.in_force
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl InForce {
    fn new(address: IpAddr, config: &Config) -> Self {
        let tls = config.api_tls.as_ref();
        Self {
            hosts: Hosts::new(address, &config.api_hosts),
            keys: Arc::new(config.access.api_keys.clone()),
            products: Arc::new(config.access.products.clone()),
            asks_for_certificates: tls.is_some_and(|tls| tls.clients.is_some()),
        }
    }
}
