//! Decides whom to trust for a collector's certificate: the machine's roots, or a file of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use goldleaves_runtime::{NAMED_FILE_BYTES_MAX, read_file};
use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::{ClientConfig, RootCertStore};

use crate::Endpoint;

/// No encrypted connection could be made to any collector.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The machine has no root certificates.
    #[error(
        "the machine's root certificates can't be read: install ca-certificates, or set OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    Roots(#[source] io::Error),
    /// The file can't be read.
    #[error("can't be read")]
    File(#[source] io::Error),
    /// The file holds something else.
    #[error("can't be read as certificates in PEM")]
    Pem(#[source] PemError),
    /// The file holds something that is no authority's certificate.
    #[error("holds no certificate to trust")]
    Useless,
    /// The library lacks what it needs.
    #[error("TLS can't be set up")]
    Tls(#[from] rustls::Error),
}

/// The certificates of a file in PEM.
pub(crate) fn read(file: &Path) -> Result<RootCertStore, CertificateError> {
    let bytes = read_file(file, NAMED_FILE_BYTES_MAX).map_err(CertificateError::File)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(CertificateError::Pem)?;
        roots.add(certificate).map_err(|_| CertificateError::Useless)?;
    }
    if roots.is_empty() { Err(CertificateError::Useless) } else { Ok(roots) }
}

/// For calls to a collector, trusting `roots` or else the machine's.
pub(crate) fn client_config(
    endpoint: &Endpoint,
    roots: Option<RootCertStore>,
) -> Result<ClientConfig, CertificateError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match roots {
        Some(roots) => builder.with_root_certificates(roots),
        None if endpoint.is_https() => builder.with_native_roots().map_err(CertificateError::Roots)?,
        // Never used: the collector speaks plain http.
        None => builder.with_root_certificates(RootCertStore::empty()),
    };
    Ok(builder.with_no_client_auth())
}
