//! Decides whether a signing secret is one that others can guess: a published sample, a repetition, a run of neighbouring keys,
//! little else than the words that samples are made of, or an encoding of one of these.
//!
//! It knows no language: a passphrase of unrelated words is let through, as random bytes are.

mod encoded;
#[cfg(test)]
mod tests;
mod words;

use words::Words;

/// Secrets that documentation and tutorials of others print and that look random: one per line, `#` begins a comment.
const PUBLISHED: &str = include_str!("published.txt");
/// The fewest letters of a published secret that are enough to know it by.
const PUBLISHED_PART: usize = 24;
/// The beginning of every key that Django's project template makes.
const PUBLISHED_START: &str = "django-insecure-";

/// Keys as they lie beside each other.
const ROWS: [&[u8]; 5] = [b"qwertyuiop", b"asdfghjkl", b"zxcvbnm", b"1234567890", b"qazwsxedcrfvtgbyhnujmikolp"];

/// The number of bytes but separators that a secret must have beside known words.
const UNKNOWN_MIN: usize = 16;
/// The number of different bytes that it must have.
const DIFFERENT_MIN: usize = 8;

/// The reason why others could guess this secret; `None` when nothing speaks for it.
pub fn fault(secret: &str) -> Option<&'static str> {
    let secret = secret.trim().as_bytes();
    let (published, words) = (published(), Words::new());
    let is_guessable = |text: &[u8]| pattern(text, &published).is_some() || is_made_of_words(text, &words);
    let encoded = || encoded::decodings(secret).iter().any(|bytes| is_guessable(bytes.trim_ascii()));
    pattern(secret, &published)
        .or_else(|| {
            let common = words.unknown(&secret.to_ascii_lowercase()) < UNKNOWN_MIN;
            common.then_some("is a sample that everybody knows: it is made of common words")
        })
        .or_else(|| encoded().then_some("is the encoding of a sample, of common words, of a repetition or of a run"))
}

/// Returns whether what a secret is the encoding of is little else than words. Random bytes are hardly ever all printable.
fn is_made_of_words(text: &[u8], words: &Words) -> bool {
    text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
        && words.unknown(&text.to_ascii_lowercase()) < UNKNOWN_MIN.min(text.len() / 2)
}

/// The published secrets in lower case.
fn published() -> Vec<String> {
    let lines = PUBLISHED.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(str::to_ascii_lowercase).collect()
}

/// Returns what everybody knows of a text without looking at its words.
fn pattern(secret: &[u8], published: &[String]) -> Option<&'static str> {
    let text = secret.to_ascii_lowercase();
    if is_published(&text, published) || text.starts_with(PUBLISHED_START.as_bytes()) {
        return Some("is a sample that everybody knows");
    }
    if different(&text) < DIFFERENT_MIN || repeats(&text) {
        return Some("repeats itself");
    }
    (is_run(&text) || steps_through_the_alphabet(secret)).then_some("is a run of neighbouring letters or keys")
}

/// Returns whether it is published, or holds what is, or is a part of it.
fn is_published(text: &[u8], published: &[String]) -> bool {
    let holds = |whole: &[u8], part: &[u8]| {
        part.len() >= PUBLISHED_PART.min(whole.len()) && whole.windows(part.len()).any(|window| window == part)
    };
    published.iter().any(|line| holds(text, line.as_bytes()) || holds(line.as_bytes(), text))
}

fn different(text: &[u8]) -> usize {
    text.iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// Returns whether it is one part over and over, the last time perhaps cut.
fn repeats(text: &[u8]) -> bool {
    (1..=text.len() / 2).any(|part| text.iter().zip(text.iter().skip(part)).all(|(one, next)| one == next))
}

/// Returns whether most bytes are the neighbour of the one before: `abcd`, `9876`, `qwerty`, `aabbcc`.
fn is_run(text: &[u8]) -> bool {
    let steps = text.windows(2).filter(|pair| matches!(pair, [one, next] if are_neighbours(*one, *next))).count();
    steps * 3 > text.len() * 2
}

fn are_neighbours(one: u8, next: u8) -> bool {
    let beside = |row: &[u8]| row.windows(2).any(|pair| pair == [one, next] || pair == [next, one]);
    one.abs_diff(next) <= 1 || ROWS.iter().any(|row| beside(row))
}

/// Returns whether most bytes stand a few letters behind the byte before the last, as in `gVkYp3s6v9y/B?E(H+`: one generator of
/// "random" keys that tutorials are full of makes them so.
fn steps_through_the_alphabet(secret: &[u8]) -> bool {
    let pairs = || secret.windows(3).filter_map(|three| Some((three.first()?, three.last()?)));
    let steps = pairs().filter(|(one, next)| (1..=5).contains(&next.saturating_sub(**one))).count();
    steps * 3 > pairs().count() * 2
}
