//! Whether a signing secret is one that others can guess: a published sample, a repetition, a run of neighbouring keys,
//! or little else than the words that samples are made of.
//!
//! It knows no dictionary of a language: a passphrase of unrelated words is let through, as random bytes are.

/// Secrets that documentation and tutorials of others print and that look random. Samples made of words need no list.
const PUBLISHED: &[&str] = &[
    // FastAPI, Spring and Node tutorials, Hasura, RFC 7515 to 7520, Django's mark of a generated development key.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "404e635266556a586e3272357538782f413f4428472b4b6250645367566b5970",
    "413f4428472b4b6250655368566d5970337336763979244226452948404d6351",
    "5367566b59703373367639792f423f4528482b4d6251655468576d5a71347437",
    "3cfa76ef14937c1c0ea519f8fc057a80fcd04a7420f8e8bcd0a7567c272e007b",
    "3ek6fd+o0+c7tzbnvfjpmkndi2yaraakzqlk8o2ikoxqu4nf7edah8s3twphwrdwt6r",
    "aym1sysppbydfgzld3umj1qzkobwvmkoqq-estjqlr_t-1qs0gzh75aktmn3yj0ips4hcguutwjazzr1z9caow",
    "hjtxizu2sn5kbqfbttnwbpdmhkv8fjg-onbc6mxccyg",
    "fdfyfzerwc2ucbb46pzqi4gg85lujr8obt-kwrbicvq",
];
/// The beginning of every key that Django's project template makes.
const PUBLISHED_START: &str = "django-insecure-";

/// Words of samples. A secret that is made of them and of little else is one.
const WORDS: &str = "\
    abc access account admin administrator advice all also always an and any api app application at auth \
    authentication authorization aws backend bar base baz be before best better bezkoder bit bits blog box by byte \
    bytes can case change changed changeit changeme changethis char character characters chars clave client code \
    combination company complex config configuration correct crypto custom data database db debug default demo deploy \
    deployed deployment dev develop development django do docker dolor don dont dragon else encoded encryption \
    enough ensure entropy env environment example examples express fake fallback fastapi firebase flask foo foobar \
    football for from game generate generated generator git github go god good goldleaves guess guide guessed hack \
    hard hash have hello here hex highly hmac horse hs256 hs384 hs512 iloveyou important in insecure insert into \
    ipsum is it java jason json jsonwebtoken just jwt keep key keys known laravel lazy least length less let letmein \
    letter letters level like local localhost long longer lorem love main make may me means min minimum minute mode \
    monkey more most must my name need needs nest nestjs never new next nextauth no node nodejs none not now number \
    of off on one only onetwothree openssl or org other our out own pass passphrase password phrase place placeholder \
    please postgres prod production program project public put python quick qwerty rails rand random randomly \
    real really refresh replace replaceme required run safe salt same sample say secret secrets secure secured \
    security server service session set sha sha256 share shared shh shhh should sign signature signed signing \
    simple site size so some something sometext spring springboot staging standard start staple stay store string \
    strings strong sufficiently suffix super supersecret system test tester testing tests text than that the then \
    there these this three to todo token tokens too top try tutorial two ultra unguessable unique unknown unsafe until use used \
    user users using utf value values variable verification verify very want was we web website welcome will with \
    without word words work world write you your yours battery brown cat dog fox jumps over sunshine princess master \
    letmeinnow trustno trustnoone pa55word passw0rd p4ssw0rd s3cret s3cr3t secr3t k3y t0ken";

/// Keys as they lie beside each other.
const ROWS: [&[u8]; 5] = [b"qwertyuiop", b"asdfghjkl", b"zxcvbnm", b"1234567890", b"qazwsxedcrfvtgbyhnujmikolp"];

/// How many letters and digits a secret must have beside known words.
const UNKNOWN_MIN: usize = 16;
/// How many different bytes it must have.
const DIFFERENT_MIN: usize = 8;

/// Why others could guess this secret; `None` when nothing speaks for it.
pub(super) fn fault(secret: &str) -> Option<&'static str> {
    let text = secret.trim().to_ascii_lowercase();
    if PUBLISHED.contains(&text.as_str()) || text.starts_with(PUBLISHED_START) {
        return Some("is a sample that everybody knows");
    }
    if different(text.as_bytes()) < DIFFERENT_MIN || repeats(text.as_bytes()) {
        return Some("repeats itself");
    }
    if is_run(text.as_bytes()) {
        return Some("is a run of neighbouring letters or keys");
    }
    (unknown(text.as_bytes()) < UNKNOWN_MIN).then_some("is a sample that everybody knows: it is made of common words")
}

fn different(text: &[u8]) -> usize {
    text.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Whether it is one part over and over, the last time perhaps cut.
fn repeats(text: &[u8]) -> bool {
    (1..=text.len() / 2).any(|part| text.iter().zip(text.iter().skip(part)).all(|(one, next)| one == next))
}

/// Whether most bytes are the neighbour of the one before: `abcd`, `9876`, `qwerty`, `aabbcc`.
fn is_run(text: &[u8]) -> bool {
    let steps = text.windows(2).filter(|pair| matches!(pair, [one, next] if are_neighbours(*one, *next))).count();
    steps * 3 > text.len() * 2
}

fn are_neighbours(one: u8, next: u8) -> bool {
    let beside = |row: &[u8]| row.windows(2).any(|pair| pair == [one, next] || pair == [next, one]);
    one.abs_diff(next) <= 1 || ROWS.iter().any(|row| beside(row))
}

/// The fewest letters and digits that are left over when the text is cut into known words.
fn unknown(text: &[u8]) -> usize {
    let words: Vec<&[u8]> = WORDS.split_ascii_whitespace().map(str::as_bytes).collect();
    // The fewest left over before each place.
    let mut fewest = vec![0_usize];
    for end in 1..=text.len() {
        let byte = text.get(end - 1).copied().unwrap_or_default();
        let before = fewest.last().copied().unwrap_or_default();
        let skipped = before + usize::from(byte.is_ascii_alphanumeric() || !byte.is_ascii());
        let known = words
            .iter()
            .filter(|word| text.get(..end).is_some_and(|start| start.ends_with(word)))
            .filter_map(|word| fewest.get(end - word.len()).copied())
            .min();
        fewest.push(known.map_or(skipped, |known| known.min(skipped)));
    }
    fewest.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tutorials_print_is_refused() {
        for known in [
            "your-secure-jwt-secret-key-here",
            "change-me-to-32-random-bytes-or-more",
            "your-super-secret-jwt-token-with-at-least-32-characters-long",
            "a-string-secret-at-least-256-bits-long",
            "a-valid-string-secret-that-is-at-least-512-bits-long-which-is-very-long",
            "this is my custom Secret key for authentication",
            "ThisIsMySuperSecretKeyForJWTAuthentication123!",
            "mysecretkeymysecretkeymysecretkey",
            "supersecretjwtkeythatnobodycanguess1234",
            "my_very_long_and_secure_jwt_secret_key_for_development_2024",
            "super-secret-key-change-in-production-please",
            "======================BezKoder=Spring===========================",
            "django-insecure-4$k1#x8q!m2z7w9r5t3y6u0p1a2s3d4f",
            "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
            "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
            "00000000000000000000000000000000",
            "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb",
            "0123456789abcdef0123456789abcdef",
            "12345678901234567890123456789012",
            "abcdefghijklmnopqrstuvwxyz123456",
            "qwertyuiopasdfghjklzxcvbnm123456",
            "correct-horse-battery-staple-correct",
            "passwordpasswordpasswordpassword",
            "deadbeefdeadbeefdeadbeefdeadbeef",
            "the quick brown fox jumps over the lazy dog",
        ] {
            assert!(fault(known).is_some(), "{known}");
        }
    }

    /// Whoever copies a line of ours must not be let into production with it.
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
}
