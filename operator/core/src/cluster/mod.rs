//! The Cluster's controller, the pure part. Steps in order: [`validate`](validate::validate), [`Observed`],
//! [`plan`](plan::plan) (with [`pod`] and [`rollout`]), [`status`](status::status).

pub mod configuration;
pub mod observed;
pub mod ownership;
pub mod plan;
pub mod pod;
pub mod rollout;
pub mod status;
pub mod validate;

pub use observed::Observed;
pub use ownership::Owner;
pub use plan::{Desired, plan};
pub use validate::{Defaults, Validated, validate};
