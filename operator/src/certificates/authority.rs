//! The authority of a Cluster: what signs its certificates.

use std::sync::Arc;
use std::time::Duration;

use coterie_operator_core::certificate::Validity;
use coterie_operator_core::cluster::ownership;
use coterie_operator_core::cluster::status::Applied;
use coterie_operator_core::cluster::{Owner, configuration};
use coterie_operator_core::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};

use super::{Error, text};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate with its key, as PEM.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
}

/// The authority of a Cluster.
pub(crate) struct Authority {
    /// Everything that is trusted as this authority, as PEM, one by one: its own certificate is among them.
    certificates: Vec<String>,
    /// What tells this authority from another.
    id: String,
    issuer: Issuer<'static, KeyPair>,
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
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        let id = configuration::hash(&certificate);
        Ok((Self { certificates: vec![certificate], id, issuer }, pem))
    }

    /// The one that the Secret holds.
    ///
    /// # Errors
    /// If it is not this Cluster's to use, or what it signs would not be accepted: what to report.
    pub(super) fn from_secret(owner: &Owner, secret: &Secret) -> Result<Self, Error> {
        let name = names::authority_secret(&owner.name);
        let is_owned = secret.metadata.owner_references.as_ref().is_some_and(|owners| !owners.is_empty());
        // One that nobody owns was put there by a person. It is used, and never changed.
        if is_owned {
            ownership::version(owner, "Secret", &name, Some(&secret.metadata)).map_err(Error::Stopped)?;
        }
        let read = || {
            let certificates = text(secret, "ca.crt").ok_or("it has no ca.crt")?;
            let key = text(secret, "ca.key").ok_or("it has no ca.key")?;
            Self::from_pem(&certificates, &key)
        };
        read().map_err(|why| Error::Stopped(Applied::AuthorityUnusable(format!("Secret {name}: {why}"))))
    }

    /// One that was made anywhere. Its certificates are issued under the subject that it has, by the certificate that its
    /// key belongs to, and are tried: what no peer would accept is refused here, and not by every connection later.
    fn from_pem(certificates: &str, key: &str) -> Result<Self, String> {
        let certificates = split(certificates);
        let mut problem = "ca.crt has no certificate that can be read; put the authority's there, as PEM".to_owned();
        for certificate in &certificates {
            let key = KeyPair::from_pem(key)
                .map_err(|error| format!("ca.key cannot be read ({error}); put a key there, as PEM and PKCS #8"))?;
            match Issuer::from_ca_cert_pem(certificate, key) {
                Ok(issuer) => {
                    let id = configuration::hash(certificate);
                    let authority = Self { certificates: certificates.clone(), id, issuer };
                    match authority.prove(certificate) {
                        Ok(()) => return Ok(authority),
                        Err(why) => problem = why,
                    }
                }
                Err(error) => problem = format!("ca.crt cannot be read ({error}); put another authority there"),
            }
        }
        Err(problem)
    }

    /// Whether a certificate that it signs is accepted by who trusts this one of it.
    fn prove(&self, certificate: &str) -> Result<(), String> {
        let now = Timestamp::now().as_second();
        let wrong = |error: &dyn std::fmt::Display| {
            format!("a certificate that it signs is not accepted ({error}); put another authority there")
        };
        let issued = self.issue(names::MEMBER_ROLE_NAME, Validity::leaf(now)).map_err(|error| wrong(&error))?;
        match verify(certificate, &issued.certificate, now) {
            Ok(()) => Ok(()),
            Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature)) => {
                Err("ca.key is not the key of ca.crt; put the key there that ca.crt was made with".to_owned())
            }
            Err(error) => Err(wrong(&error)),
        }
    }

    /// Everything that is trusted as this authority, as PEM, one by one.
    pub(crate) fn certificates(&self) -> &[String] {
        &self.certificates
    }

    /// A certificate for a role, for both ends of a connection.
    pub(crate) fn issue(&self, role: &str, validity: Validity) -> Result<Pair, Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([role.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, role);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        date(&mut params, validity);
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    /// What tells this authority from another: a hash of the certificate that signs.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Verifies a member's certificate as its peers do, which trust these authorities.
pub(crate) fn verify(trusted: &str, certificate: &str, now: i64) -> Result<(), rustls::Error> {
    let unreadable = |error: rustls::pki_types::pem::Error| rustls::Error::General(error.to_string());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(root.map_err(unreadable)?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(unreadable)?;
    let name = ServerName::try_from(names::MEMBER_ROLE_NAME).expect("a constant that is a DNS name");
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
    verifier.verify_server_cert(&certificate, &[], &name, &[], now).map(drop)
}

/// The certificates of a PEM file that can be read, one by one, each in one form.
pub(super) fn split(pem: &str) -> Vec<String> {
    let blocks = pem.split_inclusive(END).filter_map(|part| Some(&part[part.find(BEGIN)?..]));
    let lines = |block: &str| block.lines().map(|line| format!("{}\n", line.trim())).collect::<String>();
    let is_readable = |block: &String| {
        let certificate = CertificateDer::from_pem_slice(block.as_bytes());
        certificate.is_ok_and(|certificate| RootCertStore::empty().add(certificate).is_ok())
    };
    blocks.map(lines).filter(is_readable).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// An authority under a subject that nobody here would choose: its certificate and its key.
    fn foreign() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::CommonName, "The company's authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn refusal(certificates: &str, key: &str) -> String {
        Authority::from_pem(certificates, key).err().unwrap_or_default()
    }

    #[test]
    fn an_authority_of_another_subject_signs_what_its_certificate_verifies() {
        let ((certificate, key), (other, _)) = (foreign(), foreign());
        let now = Timestamp::now().as_second();
        for certificates in [certificate.clone(), format!("text before\r\n{other}\n{certificate}")] {
            let authority = Authority::from_pem(&certificates, &key).unwrap();
            let issued = authority.issue(names::MEMBER_ROLE_NAME, Validity::leaf(now)).unwrap().certificate;
            assert_eq!(verify(&authority.certificates().concat(), &issued, now), Ok(()));
            assert_eq!(verify(&certificate, &issued, now), Ok(()));
            assert!(verify(&other, &issued, now).is_err());
            assert_eq!(authority.id(), configuration::hash(&certificate));
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_fix() {
        let ((certificate, key), (_, other_key)) = (foreign(), foreign());
        for (certificates, key, says) in [
            (certificate.as_str(), other_key.as_str(), "ca.key is not the key of ca.crt; put the key there"),
            (&certificate, "no key", "ca.key cannot be read"),
            ("no certificate", &key, "ca.crt has no certificate that can be read; put the authority's there"),
        ] {
            let refusal = refusal(certificates, key);
            assert!(refusal.contains(says), "expected {says:?}, got {refusal:?}");
        }
    }

    #[test]
    fn an_authority_that_may_not_sign_for_members_is_refused() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params.self_signed(&key).unwrap().pem();
        let refusal = refusal(&certificate, &key.serialize_pem());
        assert!(refusal.contains("a certificate that it signs is not accepted"), "{refusal}");
    }

    #[test]
    fn two_authorities_of_one_subject_are_told_apart_by_who_trusts_both() {
        let owner = Owner { name: "orders".to_owned(), namespace: "shop".to_owned(), uid: "u-1".to_owned() };
        let now = Timestamp::now().as_second();
        let make = || Authority::generate(&owner, Validity::authority(now)).unwrap().0;
        let (former, present) = (make(), make());
        for both in [[&former, &present], [&present, &former]] {
            let trusted: String = both.iter().flat_map(|authority| authority.certificates().to_vec()).collect();
            for authority in both {
                let issued = authority.issue(names::MEMBER_ROLE_NAME, Validity::leaf(now)).unwrap();
                assert_eq!(verify(&trusted, &issued.certificate, now), Ok(()));
            }
        }
    }
}
