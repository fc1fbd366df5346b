//! Overrides of what users may see of products.
//!
//! `PUT /api/v1/entitlements/SUBJECT` with `{"products":{"nasdaq-l1":"real-time","cme":"none"}}` says which class the
//! subject has of these products, whatever its tokens say; of other products the tokens count. It takes effect on open
//! connections at once, and takes the place of what was said of the subject before. `DELETE` takes it back. The server
//! forgets it when it restarts, and other instances do not know of it.

use super::body::Whole;
use super::connections::Connection;
use super::permission::Permission;
use super::refusal::Refusal;
use super::{Api, read_json};
use crate::access::ProductGrants;
use crate::limits::{OVERRIDES_MAX, TOKEN_ID_BYTES_MAX};
use crate::mailbox::ToShard;
use axum::extract::{Extension, Path, Request, State};
use axum::http::StatusCode;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Mutex;

/// The subjects of which something is said. Held until all shards have been told, so that each is told in the same order.
#[derive(Debug, Default)]
pub(super) struct Overrides(Mutex<HashSet<Arc<str>>>);

/// The body of an override.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    products: ProductGrants,
}

pub(super) async fn set(
    State(api): State<Api>,
    Extension(connection): Extension<Arc<Connection>>,
    Extension(permission): Extension<Permission>,
    Path(subject): Path<String>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    permission.check_operate()?;
    let subject: Arc<str> = subject.into();
    let Whole { bytes, .. } = read_json(&connection, request).await?;
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "bad_request", message);
    let Body { products } = serde_json::from_slice(&bytes)
        .map_err(|error| bad(format!("the body must be {{\"products\":{{…}}}}: {error}")))?;
    if subject.len() > TOKEN_ID_BYTES_MAX {
        return Err(bad("no token has a subject that long".to_owned()));
    }
    let configured = api.rules.now().products;
    let is_known = |name: &str| configured.iter().any(|product| &*product.name == name);
    if let Some(name) = products.names().find(|name| !is_known(name)) {
        return Err(bad(format!("there is no [[product]] {name:?}")));
    }
    tracing::info!(%subject, ?products, "the grants of a subject are overridden");
    let mut known = api.overrides.0.lock().await;
    if known.len() >= OVERRIDES_MAX && !known.contains(&subject) {
        return Err(Refusal::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "limit",
            format!("{OVERRIDES_MAX} subjects have an override already; take some back first"),
        ));
    }
    known.insert(Arc::clone(&subject));
    tell(&api, &subject, Some(Arc::new(products))).await;
    api.metrics.overrides.set(known.len() as u64);
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unset(
    State(api): State<Api>,
    Extension(permission): Extension<Permission>,
    Path(subject): Path<String>,
) -> Result<StatusCode, Refusal> {
    permission.check_operate()?;
    let subject: Arc<str> = subject.into();
    let mut known = api.overrides.0.lock().await;
    if !known.remove(&subject) {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "no_override",
            "nothing is said of this subject",
        ));
    }
    tracing::info!(%subject, "the grants of a subject are those of its tokens again");
    tell(&api, &subject, None).await;
    api.metrics.overrides.set(known.len() as u64);
    Ok(StatusCode::NO_CONTENT)
}

async fn tell(api: &Api, subject: &Arc<str>, grants: Option<Arc<ProductGrants>>) {
    let make = || ToShard::Override {
        subject: Arc::clone(subject),
        grants: grants.clone(),
    };
    api.publisher.tell_all(make).await;
}
