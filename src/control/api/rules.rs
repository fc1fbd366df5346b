//! Whom the API answers: hosts and keys, which a reload replaces.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use super::gate::Hosts;
use crate::access::ApiKeys;

/// The rules in force. Clones share them.
#[derive(Clone, Debug)]
pub(in crate::control) struct Rules {
    /// On which the API listens.
    address: IpAddr,
    in_force: Arc<RwLock<InForce>>,
}

/// Those of one request.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) hosts: Hosts,
    pub(super) keys: Arc<ApiKeys>,
}

impl Rules {
    /// For a port on `address`, with the setting `api_hosts`.
    pub(in crate::control) fn new(address: IpAddr, hosts: &[String], keys: ApiKeys) -> Self {
        let in_force = InForce::new(address, hosts, keys);
        Self {
            address,
            in_force: Arc::new(RwLock::new(in_force)),
        }
    }

    /// From the next request on these count.
    pub(in crate::control) fn set(&self, hosts: &[String], keys: ApiKeys) {
        let next = InForce::new(self.address, hosts, keys);
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = next;
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
    fn new(address: IpAddr, hosts: &[String], keys: ApiKeys) -> Self {
        Self {
            hosts: Hosts::new(address, hosts),
            keys: Arc::new(keys),
        }
    }
}
