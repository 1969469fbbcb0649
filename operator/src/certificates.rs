//! The certificates of a Cluster.
//!
//! | Secret | holds | who reads it |
//! |---|---|---|
//! | `<cluster>-ca` | the authority and its key | the operator; nothing mounts it |
//! | `<cluster>-member-tls` | the authority, the members' certificate and key | the sidecars of the Cluster's pods |
//! | `<cluster>-client-tls` | the authority, the clients' certificate and key | client sidecars of other workloads |
//!
//! The authority's key is in a Secret of the Cluster's namespace: whoever may read Secrets there can issue a certificate to
//! themselves and become a member of the Cluster. Reading Secrets in that namespace is to be allowed accordingly.
//!
//! An authority that was not put there by the operator is used as it is. If its Secret is lost or holds another one, the
//! present one follows the former step by step ([`coterie_operator_core::certificate`]), so that members go on.
//!
//! The operator's own certificate is made from the authority when it is needed, and is never stored.

mod authority;

use std::collections::BTreeMap;

use coterie_operator_core::certificate::{
    self, AUTHORITY, Leaf, NOT_AFTER, NOT_BEFORE, OVERLAP_SECONDS, Phase, SINCE, Step, Validity,
};
use coterie_operator_core::cluster::ownership::{self, Standing};
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Owner, plan};
use coterie_operator_core::names;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;

#[cfg(test)]
pub(crate) use self::authority::verify;
pub(crate) use self::authority::{Authority, Pair};
use crate::context::Context;
use crate::write::{self, Failure, failure, write};

/// Why certificates are not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Reading a Secret failed.
    #[error("read Secret {name}")]
    Read {
        name: String,
        #[source]
        source: kube::Error,
    },
    /// Writing a Secret failed.
    #[error(transparent)]
    Write(write::Error),
    /// A Secret cannot be used or written until somebody mends it: what to report.
    #[error("something is in the way: {0:?}")]
    Stopped(Applied),
    /// Signing failed.
    #[error("sign a certificate")]
    Sign(#[from] rcgen::Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Stopped(applied) => Self::Stopped(applied),
            Failure::Failed(error) => Self::Write(error),
        }
    }
}

/// The certificates of a Cluster, as they are.
pub(crate) struct Certificates {
    /// The authority, if there is one.
    pub(crate) authority: Option<Authority>,
    /// The Secrets' names, their role, and what they hold if it can be used.
    leaves: [(String, &'static str, Option<Held>); 2],
}

/// What a Secret of the Cluster's own holds.
struct Held {
    /// The authorities that its readers trust, as PEM, one by one.
    trusted: Vec<String>,
    pair: Pair,
    signed_by: String,
    since: i64,
    validity: Validity,
}

impl Held {
    fn read(owner: &Owner, secret: &Secret) -> Option<Self> {
        if ownership::standing(owner, Some(&secret.metadata)) != Standing::Own {
            return None;
        }
        let annotation = |key: &str| secret.metadata.annotations.as_ref()?.get(key).cloned();
        let second = |key: &str| annotation(key)?.parse::<Timestamp>().ok().map(Timestamp::as_second);
        Some(Self {
            trusted: authority::split(&text(secret, "ca.crt")?),
            pair: Pair { certificate: text(secret, "tls.crt")?, key: text(secret, "tls.key")? },
            signed_by: annotation(AUTHORITY)?,
            since: second(SINCE).unwrap_or(0),
            validity: Validity { not_before: second(NOT_BEFORE)?, not_after: second(NOT_AFTER)? },
        })
    }

    fn leaf(&self, authority: &Authority) -> Leaf {
        let present = authority.certificates();
        Leaf {
            is_signed: self.signed_by == authority.id(),
            is_trusting: present.iter().all(|certificate| self.trusted.contains(certificate)),
            has_others: self.trusted.iter().any(|certificate| !present.contains(certificate)),
            since: self.since,
            validity: self.validity,
        }
    }
}

impl Certificates {
    /// The authorities whose certificates may be in use, as PEM.
    pub(crate) fn trusted(&self) -> String {
        self.bundle(self.authority.as_ref()).concat()
    }

    /// Until when there is more than one authority, if there is.
    pub(crate) fn handover(&self, now: i64) -> Option<i64> {
        let is_any_held = self.leaves.iter().any(|(_, _, held)| held.is_some());
        match &self.authority {
            None => is_any_held.then_some(now + OVERLAP_SECONDS),
            Some(authority) => match self.phase(authority, now) {
                Phase::Settled => None,
                Phase::Introduce(until) => Some(until + OVERLAP_SECONDS),
                Phase::Replace(until) => Some(until),
            },
        }
    }

    fn phase(&self, authority: &Authority, now: i64) -> Phase {
        let leaves: Vec<Leaf> =
            self.leaves.iter().filter_map(|(_, _, held)| Some(held.as_ref()?.leaf(authority))).collect();
        certificate::phase(&leaves, now)
    }

    /// The present authority first, then those that are trusted beside it, each once.
    fn bundle(&self, authority: Option<&Authority>) -> Vec<String> {
        let mut bundle = authority.map(|authority| authority.certificates().to_vec()).unwrap_or_default();
        for certificate in self.leaves.iter().filter_map(|(_, _, held)| held.as_ref()).flat_map(|held| &held.trusted) {
            if !bundle.contains(certificate) {
                bundle.push(certificate.clone());
            }
        }
        bundle
    }
}

/// The certificates as they are.
pub(crate) async fn read(context: &Context, owner: &Owner) -> Result<Certificates, Error> {
    let authority = secret(context, owner, names::authority_secret(&owner.name)).await?;
    let authority = authority.map(|secret| Authority::from_secret(owner, &secret)).transpose()?;
    let leaf = async |name: String, role| {
        let secret = secret(context, owner, name.clone()).await?;
        Ok::<_, Error>((name, role, secret.and_then(|secret| Held::read(owner, &secret))))
    };
    let leaves = [
        leaf(names::member_secret(&owner.name), names::MEMBER_ROLE_NAME).await?,
        leaf(names::client_secret(&owner.name), names::CLIENT_ROLE_NAME).await?,
    ];
    Ok(Certificates { authority, leaves })
}

async fn secret(context: &Context, owner: &Owner, name: String) -> Result<Option<Secret>, Error> {
    let secret = context.api::<Secret>(&owner.namespace).get_opt(&name).await;
    secret.map_err(|source| Error::Read { name, source })
}

/// Makes what is missing and renews what is due.
pub(crate) async fn ensure(context: &Context, owner: &Owner, certificates: Certificates) -> Result<(), Error> {
    let now = Timestamp::now().as_second();
    let made;
    let authority = match &certificates.authority {
        Some(authority) => authority,
        None => {
            made = make_authority(context, owner, now).await?;
            if certificates.handover(now).is_some() {
                let secret = names::authority_secret(&owner.name);
                tracing::warn!(cluster = owner.name, namespace = owner.namespace, secret, "made lost authority anew");
            }
            &made
        }
    };
    issue(context, owner, &certificates, authority, now).await
}

/// Renews what is due of a Cluster that is not to be changed: its members run, and must not lose each other. One without
/// certificates has no members yet.
pub(crate) async fn renew(context: &Context, owner: &Owner, certificates: Certificates) -> Result<(), Error> {
    let is_new = certificates.authority.is_none() && certificates.leaves.iter().all(|(_, _, held)| held.is_none());
    if is_new { Ok(()) } else { ensure(context, owner, certificates).await }
}

async fn issue(
    context: &Context,
    owner: &Owner,
    certificates: &Certificates,
    authority: &Authority,
    now: i64,
) -> Result<(), Error> {
    let phase = certificates.phase(authority, now);
    let trusted = match phase {
        Phase::Settled => authority.certificates().concat(),
        Phase::Introduce(_) | Phase::Replace(_) => certificates.bundle(Some(authority)).concat(),
    };
    for (name, role, held) in &certificates.leaves {
        let leaf = held.as_ref().map(|held| held.leaf(authority));
        let (validity, signed_by, issued);
        let pair = match (certificate::step(phase, leaf.as_ref(), now), held) {
            (Step::Keep, _) => continue,
            (Step::Trust, Some(held)) => {
                (validity, signed_by) = (held.validity, held.signed_by.as_str());
                &held.pair
            }
            (Step::Trust, None) | (Step::Issue, _) => {
                (validity, signed_by) = (Validity::leaf(now), authority.id());
                issued = authority.issue(role, validity)?;
                &issued
            }
        };
        let Pair { certificate, key } = pair;
        let data = [("ca.crt", trusted.clone()), ("tls.crt", certificate.clone()), ("tls.key", key.clone())];
        let mut secret = secret_of(owner, name, "kubernetes.io/tls", validity, signed_by, data);
        secret.metadata.annotations.get_or_insert_default().insert(SINCE.to_owned(), time(now));
        write::<Secret>(context, owner, name, &secret).await?;
        tracing::info!(cluster = owner.name, namespace = owner.namespace, secret = name, ?phase, "wrote certificate");
    }
    Ok(())
}

/// Created and never applied over: an authority that is lost makes every certificate worthless.
async fn make_authority(context: &Context, owner: &Owner, now: i64) -> Result<Authority, Error> {
    let name = names::authority_secret(&owner.name);
    let validity = Validity::authority(now);
    let (authority, key) = Authority::generate(owner, validity)?;
    let data = [("ca.crt", authority.certificates().concat()), ("ca.key", key)];
    let secret = secret_of(owner, &name, "Opaque", validity, authority.id(), data);
    let created = context.api::<Secret>(&owner.namespace).create(&PostParams::default(), &secret).await;
    created.map_err(|error| failure(format!("Secret {name}"), error))?;
    Ok(authority)
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default()
}

fn secret_of<const N: usize>(
    owner: &Owner,
    name: &str,
    type_: &str,
    validity: Validity,
    authority: &str,
    data: [(&str, String); N],
) -> Secret {
    let annotations = [
        (NOT_BEFORE, time(validity.not_before)),
        (NOT_AFTER, time(validity.not_after)),
        (AUTHORITY, authority.to_owned()),
    ];
    let mut metadata = plan::metadata(owner, name.to_owned());
    metadata.annotations = Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    let data: BTreeMap<String, ByteString> =
        data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
    Secret { metadata, type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
}
