//! An authority for etcd's peers of one run. (A local cluster of Coterie brings its own.)

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// It lives as long as the cluster is set up.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// PEM files.
pub(crate) struct Files {
    /// Of the authority.
    pub(crate) ca: PathBuf,
    /// Of the member.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

impl Authority {
    /// A new one.
    pub(crate) fn create() -> Result<Self> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::new(Vec::<String>::new()).context("make an authority")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).context("sign an authority")?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// A certificate for 127.0.0.1, as server and as client, in `directory`.
    pub(crate) fn issue(&self, directory: &Path) -> Result<Files> {
        let key = KeyPair::generate().context("make a key")?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).context("make a certificate")?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).context("sign a certificate")?;
        let path = |name: &str| directory.join(name);
        let files = Files { ca: path("ca.pem"), certificate: path("tls.pem"), key: path("tls.key") };
        let written =
            [(&files.ca, self.pem.clone()), (&files.certificate, certificate.pem()), (&files.key, key.serialize_pem())];
        for (path, text) in written {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(files)
    }
}
