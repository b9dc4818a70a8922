//! A certificate authority of a test's own, and what it signs: certificates and keys in files, and what a server is made of.
//! It is no model of how certificates should be kept.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::scratch::Scratch;

/// Signs certificates. Its files end with the value.
#[derive(Debug)]
pub struct Authority {
    scratch: Scratch,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// When a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Good,
    /// In the year 2001.
    Expired,
}

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub struct TlsIdentity {
    /// The certificate, as PEM.
    pub certificate: PathBuf,
    /// The key, as PEM.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one whose own certificate is in [`Self::file`].
    ///
    /// # Errors
    /// No key could be made, or no file be written.
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new("authority")?;
        let mut params = CertificateParams::new(Vec::new()).context("an authority")?;
        params.distinguished_name.push(DnType::CommonName, scratch.path().display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().context("a key")?;
        let certificate = params.self_signed(&key).context("an authority")?;
        std::fs::write(scratch.join("ca.pem"), certificate.pem()).context("ca.pem")?;
        Ok(Self { scratch, issuer: Issuer::new(params, key), certificate })
    }

    /// Returns the file of certificates for those who trust it.
    pub fn file(&self) -> PathBuf {
        self.scratch.join("ca.pem")
    }

    /// Signs a certificate for these names and addresses, into files called after `name`.
    ///
    /// # Errors
    /// No key could be made, or no file be written.
    pub fn sign(&self, name: &str, names: &[&str], validity: Validity) -> Result<TlsIdentity> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).context("a certificate")?;
        if validity == Validity::Expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 12, 31);
        }
        let key = KeyPair::generate().context("a key")?;
        let certificate = params.signed_by(&key, &self.issuer).context("a certificate")?;
        let identity = TlsIdentity {
            certificate: self.scratch.join(&format!("{name}.pem")),
            key: self.scratch.join(&format!("{name}-key.pem")),
        };
        std::fs::write(&identity.certificate, certificate.pem()).context("a certificate")?;
        std::fs::write(&identity.key, key.serialize_pem()).context("a key")?;
        Ok(identity)
    }

    /// Makes a server that shows `identity` and offers `protocols` by ALPN.
    /// With `clients` it wants a certificate that those signed.
    ///
    /// # Errors
    /// The files can't be read.
    pub fn server(identity: &TlsIdentity, protocols: &[&str], clients: Option<&Self>) -> Result<Arc<ServerConfig>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().context("versions of TLS")?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.certificate.der().clone()).context("an authority")?;
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.context("a verifier")?)
            }
        };
        let chain = CertificateDer::pem_file_iter(&identity.certificate).context("a certificate")?;
        let chain = chain.collect::<Result<Vec<_>, _>>().context("a certificate")?;
        let key = PrivateKeyDer::from_pem_file(&identity.key).context("a key")?;
        let mut config = builder.with_single_cert(chain, key).context("a server's certificate")?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Ok(Arc::new(config))
    }
}
