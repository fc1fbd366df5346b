//! Who may do what: sans-IO; keys and time are arguments.
//!
//! ```text
//! request head ─ Sources::find ─▶ token ─ TokenPolicy::verify (KeySet, now) ─▶ Grant ─▶ may_subscribe, may_publish
//!      │                                          │                              │
//!      └─ Origins::allow (before 101)             └─ TokenError: what is wrong   └─ Revocations::is_revoked, expires_s
//! ```
//!
//! - [`Origins`]: whose pages may connect.
//! - [`Proxies`]: who is believed when it says on whose behalf it connects.
//! - [`ClientLimits`]: how much each client, address and subject may do.
//! - [`Sources`]: where in a request a token is looked for.
//! - [`KeySet`]: the keys that tokens are checked with, from PEM, a shared secret or a JWKS document. Each key is for one
//!   algorithm and is never used for another.
//! - [`TokenPolicy`]: which tokens are accepted, and what they grant.
//! - [`Grant`]: what one token grants. What is not granted is refused.
//! - [`Revocations`]: whose tokens no longer count, though they have not expired.
//! - [`Products`]: the topics for which a client needs a licence, and [`Entitlements`]: what a user may see of them now.
//! - [`Seats`]: which connection of a user shows a product that it may show once.
//! - [`ApiKeys`]: the keys of publishers and operators at the API.
//!
//! No secret and no token appears in an error, in `Debug` or in `Display`.

mod api_key;
mod claims;
mod credentials;
mod entitlement;
mod grant;
mod keys;
mod network;
mod origin;
mod product;
mod proxies;
mod rate;
mod revocation;
mod seat;
mod spki;
#[cfg(test)]
mod tests;
mod token;
mod verifier;

pub use api_key::{ApiKey, ApiKeys, Digest, Proof, Scopes, digest_of};
pub use credentials::{CredentialError, Source, Sources};
pub use entitlement::{EntitlementCounts, Entitlements, Holdings, Report, UsageChange};
pub use grant::{Grant, GrantLimits, Rights, RightsPool};
pub use keys::{Algorithm, KeyError, KeySet};
pub use network::{Network, NetworkError, Networks};
pub use origin::{OriginPattern, Origins};
pub use product::{Class, Product, ProductGrants, Products, Sessions, overlap};
pub use proxies::{ForwardedHeader, Proxies};
pub use rate::{Bucket, ClientLimits, Rate, SharedBucket, Traffic};
pub use revocation::{Revocations, TooManyRevocations};
pub use seat::{Holder, Kept, Occupied, SeatChange, Seats};
pub use token::{TokenError, TokenPolicy};
pub use verifier::{Refused, Verifier};
