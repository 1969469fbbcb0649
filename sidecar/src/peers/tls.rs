//! mTLS between sidecars. A certificate's DNS name says its holder's role; everyone verifies a server as
//! [`MEMBER_NAME`]. Files are read again when they change, so certificates rotate without a restart.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use coterie_env::Env;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

/// The name in certificates of members.
pub const MEMBER_NAME: &str = "member.coterie.internal";
/// The name in certificates of client sidecars.
pub const CLIENT_NAME: &str = "client.coterie.internal";
/// The name in certificates of the operator.
pub const OPERATOR_NAME: &str = "operator.coterie.internal";

/// How long files are trusted before they are looked at again.
const REREAD_MS: u64 = 5_000;

/// What a connection's other end may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Raft, formation.
    pub member: bool,
    /// Proposals, queries, watches.
    pub client: bool,
    /// Administration.
    pub operator: bool,
}

impl Roles {
    /// A plain connection: allowed only where the configuration allows plain text.
    pub const ALL: Self = Self { member: true, client: true, operator: true };
}

/// Where the PEM files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The authorities that peers' certificates must come from.
    pub ca: PathBuf,
    /// This process's certificate and what leads to the authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// What the files give.
#[derive(Clone)]
pub struct Material {
    /// For connections that this process makes.
    pub client: Arc<rustls::ClientConfig>,
    /// For connections that it accepts.
    pub server: Arc<rustls::ServerConfig>,
}

struct Cached {
    read_ms: u64,
    bytes: [Vec<u8>; 3],
    material: Material,
}

/// The process's certificates.
pub struct Tls {
    env: Env,
    files: Files,
    cached: Mutex<Option<Cached>>,
}

impl Tls {
    /// Reads the files once, so that a wrong one is found at the start.
    pub fn open(env: &Env, files: Files) -> io::Result<Self> {
        let tls = Self { env: env.clone(), files, cached: Mutex::new(None) };
        tls.current()?;
        Ok(tls)
    }

    /// The present certificates. If the files are broken at the moment, those that were read last.
    pub fn current(&self) -> io::Result<Material> {
        let now_ms = self.env.clock.monotonic_ms();
        let mut cached = self.cached.lock().expect("no panic while the lock is held");
        if let Some(cached) = cached.as_ref().filter(|cached| now_ms < cached.read_ms + REREAD_MS) {
            return Ok(cached.material.clone());
        }
        match (self.read(), cached.as_mut()) {
            (Ok(bytes), Some(cached)) if bytes == cached.bytes => {
                cached.read_ms = now_ms;
                Ok(cached.material.clone())
            }
            (Ok(bytes), present) => match (material(&bytes), present) {
                (Ok(material), _) => {
                    *cached = Some(Cached { read_ms: now_ms, bytes, material: material.clone() });
                    Ok(material)
                }
                (Err(error), Some(cached)) => {
                    tracing::warn!(%error, "certificates changed but are not usable; keeping the former ones");
                    cached.read_ms = now_ms;
                    Ok(cached.material.clone())
                }
                (Err(error), None) => Err(error),
            },
            (Err(error), Some(cached)) => {
                tracing::warn!(%error, "certificates cannot be read; keeping the former ones");
                cached.read_ms = now_ms;
                Ok(cached.material.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    fn read(&self) -> io::Result<[Vec<u8>; 3]> {
        let read = |path: &PathBuf| {
            self.env
                .disk
                .read(path)
                .map_err(|error| io::Error::new(error.kind(), format!("read {}: {error}", path.display())))
        };
        Ok([read(&self.files.ca)?, read(&self.files.certificate)?, read(&self.files.key)?])
    }
}

fn material(bytes: &[Vec<u8>; 3]) -> io::Result<Material> {
    let other = |what: &str, error: &dyn std::fmt::Display| io::Error::other(format!("{what}: {error}"));
    let [ca, certificate, key] = bytes;
    let mut roots = rustls::RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        let authority = authority.map_err(|error| other("parse the authority's certificate", &error))?;
        roots.add(authority).map_err(|error| other("use the authority's certificate", &error))?;
    }
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| other("parse the certificate", &error))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| other("parse the key", &error))?;
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| other("choose TLS versions", &error))?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(|error| other("use the certificate", &error))?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| other("use the authorities", &error))?;
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other("choose TLS versions", &error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| other("use the certificate", &error))?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Material { client: Arc::new(client), server: Arc::new(server) })
}

/// The name under which every peer's certificate is verified.
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(MEMBER_NAME).expect("a constant that is a DNS name")
}

/// What a verified certificate allows.
pub fn roles(certificate: &CertificateDer<'_>) -> Roles {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return Roles::default() };
    let named = |name: &'static str| {
        ServerName::try_from(name).is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
    };
    let (member, client) = (named(MEMBER_NAME), named(CLIENT_NAME));
    Roles { member, client: member || client, operator: named(OPERATOR_NAME) }
}
