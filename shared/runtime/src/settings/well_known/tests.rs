//! Secrets that must be refused, and secrets that must not.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

/// The secrets of public examples, one per line.
const SAMPLES: &str = include_str!("samples.txt");

fn samples() -> impl Iterator<Item = &'static str> {
    SAMPLES.lines().filter(|line| !line.is_empty() && !line.starts_with("# "))
}

/// A shorter secret is refused for its length alone.
#[test]
fn what_public_examples_show_is_refused() {
    let long: Vec<&str> = samples().filter(|sample| sample.len() >= 32).collect();
    assert!(long.len() >= 150, "{}", long.len());
    let passed: Vec<&str> = long.into_iter().filter(|sample| fault(sample).is_none()).collect();
    assert_eq!(passed, [""; 0]);
}

/// An encoding makes a guess no harder.
#[test]
fn what_encodes_a_public_example_is_refused() {
    let hex = |text: &[u8]| text.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut passed = Vec::new();
    for sample in samples().filter(|sample| sample.len() >= 16) {
        let line = format!("{sample}\n");
        for encoded in [
            hex(sample.as_bytes()),
            hex(sample.as_bytes()).to_ascii_uppercase(),
            STANDARD.encode(sample),
            STANDARD.encode(&line),
            STANDARD_NO_PAD.encode(sample),
            URL_SAFE.encode(sample),
            URL_SAFE_NO_PAD.encode(sample),
            STANDARD.encode(hex(sample.as_bytes())),
            STANDARD.encode(STANDARD.encode(sample)),
            format!("base64:{}", STANDARD.encode(sample)),
        ] {
            passed.extend(fault(&encoded).is_none().then(|| format!("{sample}: {encoded}")));
        }
    }
    for byte in 0..=u8::MAX {
        let repeated = [byte; 32];
        for encoded in [hex(&repeated), STANDARD.encode(repeated), URL_SAFE_NO_PAD.encode(repeated)] {
            passed.extend(fault(&encoded).is_none().then_some(encoded));
        }
    }
    assert_eq!(passed, [""; 0]);
}

/// An operator who copies a line of ours must not be let into production with it.
#[test]
fn what_our_own_guides_show_is_refused() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut texts = vec![root.join("README.md"), root.join("compose.yaml")];
    for folder in ["docs", "deploy", "shared/runtime/src/settings"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        texts.extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()));
    }
    let mut shown = 0;
    for path in texts {
        let text = std::fs::read_to_string(&path).unwrap();
        let values = text.split("JWT_SECRET=").skip(1).filter_map(|rest| rest.split([' ', '\n', '`', '"']).next());
        for value in values.filter(|value| !value.is_empty() && !value.starts_with('$')) {
            shown += 1;
            assert!(fault(value).is_some(), "{}: {value}", path.display());
        }
    }
    assert!(shown > 0, "the guides show how the secret is set");
}

#[test]
fn random_bytes_and_unrelated_words_are_not() {
    for good in [
        "s3f0c9a1be27d45860c1f2e93a7b6d8054e1c7a9f3b2d6e80",
        "Kq9/3vZ1mTf7YwXr0bN+8sLhCe5uJgPd2aVoRi6tEyM=",
        "5b1f0d3c-9a7e-4c52-8f16-2e0b9d7c4a83",
        "otter lantern gravel plum trombone cinder walnut",
        "prod-signing-key-7f3a9c1e5b8d2460",
    ] {
        assert_eq!(fault(good), None, "{good}");
    }
}

/// The secrets that generators make: `openssl rand`, `uuidgen`, password managers.
fn generated(random: &mut StdRng) -> Vec<String> {
    let mut bytes = [0_u8; 48];
    random.fill_bytes(&mut bytes);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut letters = |alphabet: &[u8], count: usize| -> String {
        (0..count).map(|_| char::from(alphabet[random.random_range(0..alphabet.len())])).collect()
    };
    let printable: Vec<u8> = (b'!'..=b'~').collect();
    let alphanumeric: Vec<u8> = printable.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let password = letters(&alphanumeric, 24);
    vec![
        hex(&bytes[..16]),
        hex(&bytes[..32]),
        hex(&bytes[..32]).to_ascii_uppercase(),
        STANDARD.encode(&bytes[..24]),
        STANDARD.encode(&bytes[..32]),
        STANDARD.encode(bytes),
        URL_SAFE_NO_PAD.encode(&bytes[..32]),
        format!("base64:{}", STANDARD.encode(&bytes[..32])),
        STANDARD.encode(hex(&bytes[..32])),
        letters(&printable, 32),
        letters(&alphanumeric, 32),
        letters(&alphanumeric, 64),
        letters(b"abcdefghijklmnopqrstuvwxyz0123456789", 32),
        STANDARD.encode(&password),
        hex(password.as_bytes()),
    ]
}

#[test]
fn ten_thousand_generated_secrets_are_not() {
    let mut random = StdRng::seed_from_u64(7);
    let refused: Vec<(String, &str)> = std::iter::repeat_with(|| generated(&mut random))
        .flatten()
        .take(10_000)
        .filter_map(|secret| fault(&secret).map(|fault| (secret, fault)))
        .collect();
    assert_eq!(refused, []);
}
