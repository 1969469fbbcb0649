//! An authority for one local cluster, and its members' certificates.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::{Error, create_directory, write_file};

/// Says the role: everyone verifies a server as this, and only who has this may vote.
const MEMBER: &str = "member.coterie.internal";

/// The authority. Its key is only ever in memory.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

impl Authority {
    /// Makes a new one and writes its certificate below `home`.
    pub(super) fn create(home: &Path) -> Result<Self, Error> {
        let key = KeyPair::generate().map_err(Error::Certificates)?;
        let mut params = CertificateParams::new(Vec::<String>::new()).map_err(Error::Certificates)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Coterie local cluster");
        let pem = params.self_signed(&key).map_err(Error::Certificates)?.pem();
        create_directory(&home.join("tls"))?;
        let certificate = home.join("tls").join("ca.pem");
        write_file(&certificate, &pem)?;
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The path of its certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.certificate.clone()
    }

    /// Writes a member's certificate and key into `directory`.
    pub(super) fn issue(&self, directory: &Path) -> Result<(), Error> {
        let key = KeyPair::generate().map_err(Error::Certificates)?;
        let mut params = CertificateParams::new(vec![MEMBER.to_owned()]).map_err(Error::Certificates)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Error::Certificates)?;
        write_file(&directory.join("tls.pem"), &certificate.pem())?;
        write_file(&directory.join("tls.key"), &key.serialize_pem())
    }
}
