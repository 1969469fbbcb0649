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
use coterie_operator_core::cluster::{Validated, configuration, plan};
use coterie_operator_core::names;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::context::Context;

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
    #[error("write Secret {name}")]
    Write {
        name: String,
        #[source]
        source: kube::Error,
    },
    /// The authority's Secret cannot be used.
    #[error("Secret {name} is not the authority of this Cluster: {why}")]
    Authority { name: String, why: String },
    /// Signing failed.
    #[error("sign a certificate")]
    Sign(#[from] rcgen::Error),
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
    pub(crate) fn generate(cluster: &Validated, validity: Validity) -> Result<(Self, String), Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        date(&mut params, validity);
        let certificate = params.self_signed(&key)?.pem();
        let pem = key.serialize_pem();
        Ok((Self { certificate, key, subject: subject(cluster) }, pem))
    }

    fn from_secret(cluster: &Validated, secret: &Secret) -> Result<Self, Error> {
        let name = names::authority_secret(&cluster.name);
        let wrong = |why: &str| Error::Authority { name: name.clone(), why: why.to_owned() };
        let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
        // One of a Cluster of this name that was deleted: Kubernetes removes it in a moment.
        if owners.iter().any(|owner| owner.uid != cluster.uid) {
            return Err(wrong("it belongs to another object; if it stays, delete it"));
        }
        let text = |key: &str| -> Option<String> { String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok() };
        let certificate = text("ca.crt").ok_or_else(|| wrong("it has no ca.crt"))?;
        let key = text("ca.key").ok_or_else(|| wrong("it has no ca.key"))?;
        let key = KeyPair::from_pem(&key).map_err(|error| wrong(&format!("ca.key cannot be read: {error}")))?;
        Ok(Self { certificate, key, subject: subject(cluster) })
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

fn subject(cluster: &Validated) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "coterie.dev");
    subject.push(DnType::CommonName, format!("{}.{}", cluster.name, cluster.namespace));
    subject
}

fn date(params: &mut CertificateParams, validity: Validity) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + Duration::from_secs(u64::try_from(second).unwrap_or(0));
    params.not_before = at(validity.not_before);
    params.not_after = at(validity.not_after);
}

/// The authority, if there is one.
pub(crate) async fn read(context: &Context, cluster: &Validated) -> Result<Option<Authority>, Error> {
    let name = names::authority_secret(&cluster.name);
    let secret = context.api::<Secret>(&cluster.namespace).get_opt(&name).await;
    let secret = secret.map_err(|source| Error::Read { name, source })?;
    secret.map(|secret| Authority::from_secret(cluster, &secret)).transpose()
}

/// Makes what is missing and renews what is due.
pub(crate) async fn ensure(context: &Context, cluster: &Validated, authority: Option<Authority>) -> Result<(), Error> {
    let now = Timestamp::now().as_second();
    let authority = match authority {
        Some(authority) => authority,
        None => make_authority(context, cluster, now).await?,
    };
    let leaves = [
        (names::member_secret(&cluster.name), names::MEMBER_ROLE_NAME),
        (names::client_secret(&cluster.name), names::CLIENT_ROLE_NAME),
    ];
    for (name, role) in leaves {
        let api = context.api::<Secret>(&cluster.namespace);
        let secret = api.get_opt(&name).await.map_err(|source| Error::Read { name: name.clone(), source })?;
        if secret.is_some_and(|secret| is_current(&secret, cluster, &authority, now)) {
            continue;
        }
        let validity = Validity::leaf(now);
        let Pair { certificate, key } = authority.issue(role, validity)?;
        let data = [("ca.crt", authority.certificate.clone()), ("tls.crt", certificate), ("tls.key", key)];
        let secret = secret_of(cluster, &name, "kubernetes.io/tls", validity, &authority.id(), data);
        let applied = api.patch(&name, &PatchParams::apply(names::MANAGER).force(), &Patch::Apply(&secret)).await;
        applied.map_err(|source| Error::Write { name: name.clone(), source })?;
        tracing::info!(cluster = cluster.name, namespace = cluster.namespace, secret = name, "issued certificate");
    }
    Ok(())
}

/// Created and never applied over: an authority that is lost makes every certificate worthless.
async fn make_authority(context: &Context, cluster: &Validated, now: i64) -> Result<Authority, Error> {
    let name = names::authority_secret(&cluster.name);
    let validity = Validity::authority(now);
    let (authority, key) = Authority::generate(cluster, validity)?;
    let data = [("ca.crt", authority.certificate.clone()), ("ca.key", key)];
    let secret = secret_of(cluster, &name, "Opaque", validity, &authority.id(), data);
    let created = context.api::<Secret>(&cluster.namespace).create(&PostParams::default(), &secret).await;
    created.map_err(|source| Error::Write { name, source })?;
    Ok(authority)
}

fn is_current(secret: &Secret, cluster: &Validated, authority: &Authority, now: i64) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
    let second = |key: &str| annotation(key)?.parse::<Timestamp>().ok().map(Timestamp::as_second);
    let validity =
        second(NOT_BEFORE).zip(second(NOT_AFTER)).map(|(not_before, not_after)| Validity { not_before, not_after });
    let data = secret.data.as_ref();
    let is_whole = ["ca.crt", "tls.crt", "tls.key"].iter().all(|key| data.is_some_and(|data| data.contains_key(*key)));
    let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
    let is_owned = owners.iter().any(|owner| owner.uid == cluster.uid);
    is_whole
        && is_owned
        && annotation(AUTHORITY) == Some(&authority.id())
        && validity.is_some_and(|validity| !validity.is_due(now))
}

fn secret_of<const N: usize>(
    cluster: &Validated,
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
    let mut metadata = plan::metadata(cluster, name.to_owned());
    metadata.annotations = Some(annotations.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
    let data: BTreeMap<String, ByteString> =
        data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect();
    Secret { metadata, type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
}
