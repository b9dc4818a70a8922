//! TLS to upstreams: their certificates are verified always, against a file, else the system's store, else Mozilla's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use goldleaves_runtime::{NAMED_FILE_BYTES_MAX, read_file};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use super::origin::Origin;

/// The files that an upstream's TLS is made of, and the name that its certificate must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) server_name: Option<ServerName<'static>>,
    /// Certificates and the key.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

/// The encryption of connections.
#[derive(Clone)]
pub(crate) struct Tls {
    one: Arc<ClientConfig>,
    two: Arc<ClientConfig>,
    files: TlsFiles,
    /// The contents of the files, by which a change is noticed.
    contents: Contents,
}

/// Made of the same files with the same in them.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files && self.contents == other.contents
    }
}

impl Eq for Tls {}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let client = self.client.iter().flat_map(|(certificates, key)| [certificates, key]);
        self.ca.iter().chain(client)
    }
}

/// The contents of the files as far as they were read. Each is read once, so that what is in use is what a later
/// reading is compared with.
#[derive(Clone, Default, PartialEq, Eq)]
struct Contents(Vec<Vec<u8>>);

impl Contents {
    fn read(&mut self, of: Of, file: &Path) -> Result<&[u8], TlsError> {
        self.0.push(read_file(file, NAMED_FILE_BYTES_MAX).map_err(wrong(of, file))?);
        Ok(self.0.last().map(Vec::as_slice).unwrap_or_default())
    }
}

/// The reason why the files can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}: {why}", .file.as_ref().map(|file| format!(" {}", file.display())).unwrap_or_default())]
pub(crate) struct TlsError {
    of: Of,
    what: &'static str,
    file: Option<PathBuf>,
    why: String,
}

/// The parts of the settings that an error can be about. One file may be named for several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Authorities,
    Certificates,
    Key,
}

impl TlsError {
    /// The part that is wrong.
    pub(crate) const fn of(&self) -> Of {
        self.of
    }
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Each file that is wrong.
    pub(crate) fn read(files: TlsFiles) -> Result<Self, Vec<TlsError>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let plain =
            |why: rustls::Error| vec![TlsError { of: Of::Authorities, what: "TLS", file: None, why: why.to_string() }];
        let builder = builder.map_err(plain)?;
        let mut contents = Contents::default();
        let roots = roots(files.ca.as_deref(), &mut contents);
        let client = files.client.as_ref().map(|(certificates, key)| {
            (key_in(key, &mut contents), chain(Of::Certificates, certificates, &mut contents), key.clone())
        });
        let mut one = match (roots, client) {
            (Ok(roots), None) => builder.with_root_certificates(roots).with_no_client_auth(),
            (Ok(roots), Some((Ok(key), Ok(chain), file))) => {
                let made = builder.with_root_certificates(roots).with_client_auth_cert(chain, key);
                let what = "certificate and key do not fit:";
                made.map_err(|why| vec![TlsError { of: Of::Key, what, file: Some(file), why: why.to_string() }])?
            }
            (roots, client) => {
                let of_client = client.into_iter().flat_map(|(key, chain, _)| [key.err(), chain.err()]);
                return Err(std::iter::once(roots.err()).chain(of_client).flatten().collect());
            }
        };
        let mut two = one.clone();
        one.alpn_protocols = vec![b"http/1.1".to_vec()];
        two.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { one: Arc::new(one), two: Arc::new(two), files, contents })
    }

    /// The same with this file of authorities.
    ///
    /// # Errors
    /// As [`Tls::read`].
    pub(crate) fn with_ca(&self, ca: PathBuf) -> Result<Self, Vec<TlsError>> {
        Self::read(TlsFiles { ca: Some(ca), ..self.files.clone() })
    }

    /// The first key of an entry that it was made of.
    pub(crate) const fn first_key(&self) -> &'static str {
        match &self.files {
            TlsFiles { ca: Some(_), .. } => "ca_file",
            TlsFiles { server_name: Some(_), .. } => "server_name",
            TlsFiles { .. } => "client_cert_file",
        }
    }

    /// Returns whether it has a file of authorities of its own.
    pub(crate) const fn has_own_ca(&self) -> bool {
        self.files.ca.is_some()
    }

    /// Says so when people read the key who have no business with it.
    pub(crate) fn warn_of_open_key(&self) {
        use std::os::unix::fs::PermissionsExt as _;

        let Some((_, key)) = &self.files.client else { return };
        if std::fs::metadata(key).is_ok_and(|found| found.permissions().mode() & 0o007 != 0) {
            tracing::warn!(file = %key.display(), "others than its owner and group may read a private key; it is used");
        }
    }

    pub(super) fn config(&self, speaks: super::Speaks) -> Arc<ClientConfig> {
        Arc::clone(if speaks == super::Speaks::Two { &self.two } else { &self.one })
    }

    /// The files that it was made of.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.files.all().cloned().collect()
    }

    /// The name that the certificate must have.
    pub(crate) fn name(&self, origin: &Origin) -> Option<ServerName<'static>> {
        self.files.server_name.clone().or_else(|| origin.server_name())
    }

    /// Returns whether that name is one of the settings, and none of an address.
    pub(crate) const fn has_own_name(&self) -> bool {
        self.files.server_name.is_some()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn roots(file: Option<&Path>, contents: &mut Contents) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = file {
        for certificate in chain(Of::Authorities, file, contents)? {
            roots.add(certificate).map_err(|why| wrong(Of::Authorities, file)(why))?;
        }
        return Ok(roots);
    }
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(roots)
}

fn key_in(file: &Path, contents: &mut Contents) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(contents.read(Of::Key, file)?).map_err(wrong(Of::Key, file))
}

fn chain(of: Of, file: &Path, contents: &mut Contents) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(contents.read(of, file)?);
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(wrong(of, file))?;
    if certificates.is_empty() {
        return Err(wrong(of, file)("there is none in it"));
    }
    Ok(certificates)
}

fn wrong<E: fmt::Display>(of: Of, file: &Path) -> impl FnOnce(E) -> TlsError {
    let file = Some(file.to_owned());
    let what = match of {
        Of::Authorities => "the certificate authorities",
        Of::Certificates => "the certificates",
        Of::Key => "the key",
    };
    move |why| TlsError { of, what, file, why: why.to_string() }
}
