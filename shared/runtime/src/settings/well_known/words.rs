//! How much of a text is left when the words that samples are made of are taken out.
//!
//! It knows no dictionary of a language: only what those write who need some secret now and mean to change it later.

use std::collections::BTreeMap;

/// Words of samples. A secret that is made of them and of little else is one.
const WORDS: &str = "\
    abc access account admin administrator advice all also always an and any api app application at auth \
    authentication authorization aws backend bar base baz be before best better bezkoder bit bits blog box by \
    byte bytes can case change changed changeit changeme changethis char character characters chars clave client \
    code combination company complex config configuration correct crypto custom data database db debug default \
    demo deploy deployed deployment dev develop development django do docker dolor don dont dragon else encoded \
    encryption enough ensure entropy env environment example examples express fake fallback fastapi firebase \
    flask foo foobar football for from game generate generated generator git github go god good goldleaves guess \
    guide guessed hack hard hash have hello here hex highly hmac horse hs256 hs384 hs512 iloveyou important in \
    insecure insert into ipsum is it java jason json jsonwebtoken just jwt keep key keys known laravel lazy \
    least length less let letmein letter letters level like local localhost long longer lorem love main make may \
    me means min minimum minute mode monkey more most must my name need needs nest nestjs never new next \
    nextauth no node nodejs none not now number of off on one only onetwothree openssl or org other our out own \
    pass passphrase password phrase place placeholder please postgres prod production program project public put \
    python quick qwerty rails rand random randomly real really refresh replace replaceme required run safe salt \
    same sample say secret secrets secure secured security server service session set sha sha256 share shared \
    shh shhh should sign signature signed signing simple site size so some something sometext spring springboot \
    staging standard start staple stay store string strings strong sufficiently suffix super supersecret system \
    test tester testing tests text than that the then there these this three to todo token tokens too top try \
    tutorial two ultra unguessable unique unknown unsafe until use used user users using utf value values \
    variable verification verify very want was we web website welcome will with without word words work world \
    write you your yours battery brown cat dog fox jumps over sunshine princess master letmeinnow trustno \
    trustnoone pa55word passw0rd p4ssw0rd s3cret s3cr3t secr3t k3y t0ken create creates outside source mein \
    geheim geheimer schluessel bitte aendern passwort sehr langer tu secreta secreto larga segura cambiar \
    contrasena minha chave senha muito longa trocar segredo secrete longue changer motdepasse cle tres modified captain jack sparrow says hi";

/// The characters that stand between words and make no secret harder to guess.
const SEPARATORS: &[u8] = b" -_.,=!:;/";

/// The words, found by their last byte.
pub(super) struct Words {
    by_end: BTreeMap<u8, Vec<&'static [u8]>>,
}

impl Words {
    /// All of them.
    pub(super) fn new() -> Self {
        let mut by_end = BTreeMap::<u8, Vec<&[u8]>>::new();
        for word in WORDS.split_ascii_whitespace().map(str::as_bytes) {
            by_end.entry(word.last().copied().unwrap_or_default()).or_default().push(word);
        }
        Self { by_end }
    }

    /// The fewest bytes but separators that are left over when a lower-case text is cut into known words.
    pub(super) fn unknown(&self, text: &[u8]) -> usize {
        // The fewest left over before each place.
        let mut fewest = vec![0_usize];
        for (place, byte) in text.iter().enumerate() {
            let before = fewest.last().copied().unwrap_or_default();
            let skipped = before + usize::from(!SEPARATORS.contains(byte));
            let start = text.get(..=place).unwrap_or_default();
            let ending = self.by_end.get(byte).into_iter().flatten().filter(|word| start.ends_with(word));
            let known = ending.filter_map(|word| fewest.get(start.len() - word.len()).copied()).min();
            fewest.push(known.map_or(skipped, |known| known.min(skipped)));
        }
        fewest.last().copied().unwrap_or_default()
    }
}
