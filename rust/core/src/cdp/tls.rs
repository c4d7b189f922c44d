//! Mutual TLS 1.3 from a shared key: both ends derive both ends' Ed25519 keys from it, show theirs
//! as a raw public key (RFC 7250) and take no other from the peer. Who has not the key cannot
//! finish the handshake, and nothing it sends is looked at.

use std::sync::Arc;

use ring::hkdf;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName,
    ServerConfig, SignatureScheme,
};

use crate::error::{Error, Result};

/// A shared key has at least so many bytes.
pub const KEY_BYTES_MIN: usize = 16;

/// PKCS #8 and SubjectPublicKeyInfo of Ed25519 are these bytes and 32 more (RFC 8410).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// What is derived from the shared key.
pub struct Secret(hkdf::Prk);

struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl Secret {
    /// # Errors
    /// `Input` when the key is too short to be one.
    pub fn new(key: &[u8]) -> Result<Self> {
        let key = key.trim_ascii();
        if key.len() < KEY_BYTES_MIN {
            return Err(Error::input(format!(
                "the shared key: expected at least {KEY_BYTES_MIN} bytes, got {}",
                key.len()
            )));
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"vaio-bench replication");
        Ok(Self(salt.extract(key)))
    }

    fn pair(&self, role: &[u8]) -> Result<(Arc<CertifiedKey>, Vec<u8>)> {
        let broken = |_| Error::failed("cannot derive a key");
        let mut seed = [0; 32];
        let info = [role];
        let okm = self.0.expand(&info, Bytes32).map_err(broken)?;
        okm.fill(&mut seed).map_err(broken)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| Error::failed("cannot make a key pair"))?;
        let public = [&SPKI[..], pair.public_key().as_ref()].concat();
        let private = PrivatePkcs8KeyDer::from([&PKCS8[..], &seed[..]].concat());
        let signing = rustls::crypto::ring::sign::any_eddsa_type(&private)
            .map_err(|e| Error::failed(format!("cannot make a key pair: {e}")))?;
        let shown = CertificateDer::from(public.clone());
        Ok((Arc::new(CertifiedKey::new(vec![shown], signing)), public))
    }

    /// The source's side.
    ///
    /// # Errors
    /// The library refuses its own parts.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let (own, _) = self.pair(b"source")?;
        let (_, peer) = self.pair(b"site")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Arc::new(Pinned { peer, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(told)?
            .dangerous()
            .with_custom_certificate_verifier(pinned)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(own)));
        Ok(Arc::new(config))
    }

    /// The site's side.
    ///
    /// # Errors
    /// As `client`.
    pub fn server(&self) -> Result<Arc<ServerConfig>> {
        let (own, _) = self.pair(b"site")?;
        let (_, peer) = self.pair(b"source")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Arc::new(Pinned { peer, provider: Arc::clone(&provider) });
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(told)?
            .with_client_cert_verifier(pinned)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(own)));
        // A session is never resumed: every connection proves that it has the key.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// What is told of a failed handshake: that the peer has another key is somebody's mistake.
pub fn told(error: rustls::Error) -> Error {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    match error {
        InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        | AlertReceived(AlertDescription::AccessDenied) => Error::input("it has another key"),
        error => Error::failed(format!("TLS: {error}")),
    }
}

/// Takes one public key and no other.
#[derive(Debug)]
struct Pinned {
    peer: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn is_peer(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        if shown.as_ref() == self.peer {
            return Ok(());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn signed(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = SubjectPublicKeyInfoDer::from(shown.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
    }
}

const NO_TLS12: rustls::Error =
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.is_peer(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.is_peer(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(NO_TLS12)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signed(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
