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
//! The operator's own certificate is made from the authority when it is needed, and is never stored.

use std::collections::BTreeMap;
use std::time::Duration;

use coterie_operator_core::certificate::{AUTHORITY, NOT_AFTER, NOT_BEFORE, Validity};
use coterie_operator_core::cluster::ownership::{self, Standing};
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Owner, configuration, plan};
use coterie_operator_core::names;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

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

/// A certificate with its key, as PEM.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
}

/// The authority of a Cluster.
pub(crate) struct Authority {
    certificate: String,
    key: KeyPair,
    subject: DistinguishedName,
}

impl Authority {
    /// A new one, and its key as PEM.
    pub(crate) fn generate(owner: &Owner, validity: Validity) -> Result<(Self, String), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(owner);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, validity);
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok((Self { certificate, key, subject: subject(owner) }, pem))
    }

    fn from_secret(owner: &Owner, secret: &Secret) -> Result<Self, Error> {
        let name = names::authority_secret(&owner.name);
        let wrong = |why: &str| {
            let why = format!("Secret {name} is not the authority of this Cluster: {why}; mend it or delete it");
            Error::Stopped(Applied::Taken(why))
        };
        let is_owned = secret.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        // One that nobody owns was put there by a person. It is used, and never changed.
        if is_owned {
            ownership::version(owner, "Secret", &name, Some(&secret.metadata)).map_err(Error::Stopped)?;
        }
        let text = |key: &str| -> Option<String> { String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok() };
        let certificate = text("ca.crt").ok_or_else(|| wrong("it has no ca.crt"))?;
        let key = text("ca.key").ok_or_else(|| wrong("it has no ca.key"))?;
        let key = KeyPair::from_pem(&key).map_err(|error| wrong(&format!("ca.key cannot be read: {error}")))?;
        Ok(Self { certificate, key, subject: subject(owner) })
    }

    /// The authority's certificate, as PEM.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for a role, for both ends of a connection.
    pub(crate) fn issue(&self, role: &str, validity: Validity) -> Result<Pair, Error> {
        let mut issuer = CertificateParams::default();
        issuer.distinguished_name = self.subject.clone();
        issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let issuer = Issuer::from_params(&issuer, &self.key);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([role.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, role);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        date(&mut params, validity);
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    /// What tells this authority from another.
    fn id(&self) -> String {
        configuration::hash(&self.certificate)
    }
}

fn subject(owner: &Owner) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "coterie.dev");
    subject.push(DnType::CommonName, format!("{}.{}", owner.name, owner.namespace));
    subject
}

fn date(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or(0));
    params.not_before = at(validity.not_before);
    params.not_after = at(validity.not_after);
}

/// The authority, if there is one.
pub(crate) async fn read(context: &Context, owner: &Owner) -> Result<Option<Authority>, Error> {
    let name = names::authority_secret(&owner.name);
    let secret = context.api::<Secret>(&owner.namespace).get_opt(&name).await;
    let secret = secret.map_err(|source| Error::Read { name, source })?;
    secret.map(|secret| Authority::from_secret(owner, &secret)).transpose()
}

/// Makes what is missing and renews what is due.
pub(crate) async fn ensure(context: &Context, owner: &Owner, authority: Option<Authority>) -> Result<(), Error> {
    let authority = match authority {
        Some(authority) => authority,
        None => make_authority(context, owner, Timestamp::now().as_second()).await?,
    };
    issue(context, owner, &authority).await
}

/// Renews what is due of a Cluster that is not to be changed: its members run, and must not lose each other. One without
/// an authority has no members yet.
pub(crate) async fn renew(context: &Context, owner: &Owner, authority: Option<Authority>) -> Result<(), Error> {
    match authority {
        Some(authority) => issue(context, owner, &authority).await,
        None => Ok(()),
    }
}

async fn issue(context: &Context, owner: &Owner, authority: &Authority) -> Result<(), Error> {
    let now = Timestamp::now().as_second();
    let leaves = [
        (names::member_secret(&owner.name), names::MEMBER_ROLE_NAME),
        (names::client_secret(&owner.name), names::CLIENT_ROLE_NAME),
    ];
    for (name, role) in leaves {
        let api = context.api::<Secret>(&owner.namespace);
        let secret = api.get_opt(&name).await.map_err(|source| Error::Read { name: name.clone(), source })?;
        if secret.is_some_and(|secret| is_current(&secret, owner, authority, now)) {
            continue;
        }
        let validity = Validity::leaf(now);
        let Pair { certificate, key } = authority.issue(role, validity)?;
        let data = [("ca.crt", authority.certificate.clone()), ("tls.crt", certificate), ("tls.key", key)];
        let secret = secret_of(owner, &name, "kubernetes.io/tls", validity, &authority.id(), data);
        write::<Secret>(context, owner, &name, &secret).await?;
        tracing::info!(cluster = owner.name, namespace = owner.namespace, secret = name, "issued certificate");
    }
    Ok(())
}

/// Created and never applied over: an authority that is lost makes every certificate worthless.
async fn make_authority(context: &Context, owner: &Owner, now: i64) -> Result<Authority, Error> {
    let name = names::authority_secret(&owner.name);
    let validity = Validity::authority(now);
    let (authority, key) = Authority::generate(owner, validity)?;
    let data = [("ca.crt", authority.certificate.clone()), ("ca.key", key)];
    let secret = secret_of(owner, &name, "Opaque", validity, &authority.id(), data);
    let created = context.api::<Secret>(&owner.namespace).create(&PostParams::default(), &secret).await;
    created.map_err(|error| failure(format!("Secret {name}"), error))?;
    Ok(authority)
}

fn is_current(secret: &Secret, owner: &Owner, authority: &Authority, now: i64) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
    let second = |key: &str| annotation(key)?.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let validity =
        second(NOT_BEFORE).zip(second(NOT_AFTER)).map(|(not_before, not_after)| Validity { not_before, not_after });
    let data = secret.data.as_ref();
    let is_whole = ["ca.crt", "tls.crt", "tls.key"].iter().all(|key| data.is_some_and(|data| data.contains_key(*key)));
    is_whole
        && ownership::standing(owner, Some(&secret.metadata)) == Standing::Own
        && annotation(AUTHORITY) == Some(&authority.id())
        && validity.is_some_and(|validity| !validity.is_due(now))
}

fn secret_of<const N: usize>(
    owner: &Owner,
    name: &str,
    type_: &str,
    validity: Validity,
    authority: &str,
    data: [(&str, String); N],
) -> Secret {
    let time = |second: i64| Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default();
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
