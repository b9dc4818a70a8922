//! Where values come from, and how a program asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Num, Value};
use figment::{Figment, Metadata, Profile, Provider};
use sha2::{Digest as _, Sha256};

use super::again::Again;
use super::file::File;
use super::mistakes::{Mistake, Mistakes};
use super::table::{self, Setting, SettingKind};
use super::{DEFAULT_TOML, FILE_NAME, later, nearest};
use crate::files::{NAMED_FILE_BYTES_MAX, Pipes, read_file_or_pipe};

/// The longest piece of a wrong value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;
const ENVIRONMENT_LAYER: &str = "environment";
const DEFAULT_LAYER: &str = "default";

/// All layers of settings, and the mistakes found while reading them.
///
/// Every read returns `None` after noting a mistake, so that a program reads everything before it gives up:
///
/// ```
/// use goldleaves_runtime::settings::{Values, parse, table};
///
/// struct Config { address: std::net::SocketAddr, minutes: u32 }
///
/// let mut values = Values::load([("GATEWAY_ADDR", "127.0.0.1:8080")], None);
/// let address = values.required(table::GATEWAY_ADDR, parse::socket_address);
/// let minutes = values.required(table::JWT_EXPIRATION_MINUTES, parse::whole(1..=60));
/// let read = || Some(Config { address: address?, minutes: minutes? });
/// let config = values.finish(read()).unwrap();
/// assert_eq!((config.address.port(), config.minutes), (8080, 60));
/// ```
pub struct Values {
    layers: Figment,
    not_unicode: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
    /// The only mistake that is told where the file cannot be understood.
    no_toml: Option<Mistake>,
    doubts: Vec<Mistake>,
    warnings: Vec<String>,
    readings: BTreeMap<&'static str, Reading>,
    /// The hashes of all that was read: also of secrets, and of what their files hold.
    digests: BTreeMap<&'static str, [u8; 32]>,
    /// The file that the settings were read from.
    file: Option<File>,
    /// Files that hold a secret each.
    secret_files: Vec<PathBuf>,
    /// The fate of pipes in the place of such files.
    pipes: Pipes,
    again: Option<Again>,
}

/// One setting as it was read, for `check-config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The setting.
    pub setting: Setting,
    /// `environment`, the file's name or `default`; `None` = it has no value.
    pub layer: Option<String>,
    /// The value; `set` for one that must not be seen. `None` = it has none.
    pub shown: Option<String>,
}

impl Values {
    /// The defaults below the text of `goldleaves.toml` below the environment. An empty variable counts as unset.
    pub fn load<K, V>(environment: impl IntoIterator<Item = (K, V)>, file: Option<&str>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        Self::load_file(environment, file.map(|text| File { name: FILE_NAME.to_owned(), text: text.to_owned() }))
    }

    /// Works like [`Values::load`], with a file that may have a name of its own.
    pub(crate) fn load_file<K, V>(environment: impl IntoIterator<Item = (K, V)>, file: Option<File>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let Variables { layer: environment, not_unicode, mistakes, warnings } = variables(environment);
        let mut values = Self {
            layers: Figment::from(NamedLayer(DEFAULT_LAYER.to_owned(), DEFAULT_TOML)),
            not_unicode,
            mistakes,
            no_toml: None,
            doubts: Vec::new(),
            warnings,
            readings: BTreeMap::new(),
            digests: BTreeMap::new(),
            file: None,
            secret_files: Vec::new(),
            pipes: Pipes::ReadOnce,
            again: None,
        };
        if let Some(file) = file {
            values.add_file(&file);
            values.file = Some(file);
        }
        values.layers = values.layers.merge(environment);
        values
    }

    /// Reads a value that must be there, from one of the layers or as a default.
    pub fn required<T, E: Display>(&mut self, setting: Setting, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.optional(setting, parse)?;
        if value.is_none() {
            self.mistake(setting, "is missing");
        }
        value
    }

    /// Reads a value that may be absent. The outer `None` is a mistake, already noted.
    pub fn optional<T, E: Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(setting)? else {
            return Some(None);
        };
        match parse(&text) {
            Ok(value) => Some(Some(value)),
            Err(error) => {
                self.mistake(setting, &wrong(setting, &text, &error));
                None
            }
        }
    }

    /// Works like [`Values::optional`], for a secret that a discreet parser reads: its errors, which are shown, repeat
    /// nothing of it.
    pub fn optional_discreet<T, E: Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        let Some(text) = self.text(setting)? else {
            return Some(None);
        };
        parse(&text).map(Some).inspect_err(|error| self.mistake(setting, &error.to_string())).ok()
    }

    /// Works like [`Values::optional_discreet`], for a value that must be there.
    pub fn required_discreet<T, E: Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.optional_discreet(setting, parse)?;
        if value.is_none() {
            self.mistake(setting, "is missing");
        }
        value
    }

    /// Reads a value, or takes the program's own default.
    pub fn or_default<T: Display, E: Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
        default: T,
    ) -> Option<T> {
        let value = self.optional(setting, parse)?;
        Some(value.unwrap_or_else(|| {
            self.stands_for(setting, &default);
            default
        }))
    }

    /// Notes what an unset setting stands for in this program, so that `check-config` shows what holds.
    pub(crate) fn stands_for(&mut self, setting: Setting, default: &dyn Display) {
        if let Some(reading) = self.readings.get_mut(setting.name).filter(|reading| reading.shown.is_none()) {
            reading.layer = Some(DEFAULT_LAYER.to_owned());
            reading.shown = Some(default.to_string());
        }
    }

    /// Returns whether the file or the environment sets it, or names the file that does.
    pub fn is_set(&self, setting: Setting) -> bool {
        let by_file = setting.file().is_some_and(|(name, key)| self.has(name, key));
        by_file || self.has(setting.name, setting.key)
    }

    fn has(&self, name: &str, key: &str) -> bool {
        self.not_unicode.contains(name)
            || self.layers.find_value(key).is_ok_and(|value| self.layer_of(&value) != DEFAULT_LAYER)
    }

    /// Returns what is probably not meant as it is, though it is no mistake: variables that are nearly a setting's
    /// name.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Refuses a setting that does nothing yet, when it is set.
    pub fn refuse(&mut self, setting: Setting, why: &str) {
        if self.is_set(setting) {
            let text = format!("does nothing yet ({why}); expected: unset");
            self.mistakes.push(Mistake { subject: setting.name.to_owned(), text });
        }
    }

    /// Notes a mistake that only the program can see. `text` must hold no secret.
    pub fn mistake(&mut self, setting: Setting, text: &str) {
        let text = format!("{text}; expected {}", setting.expects);
        self.mistakes.push(Mistake { subject: setting.name.to_owned(), text });
    }

    /// Notes what a program can run with and nobody can mean: `check-config` refuses it. `text` must hold no secret.
    pub fn doubt(&mut self, setting: Setting, text: &str) {
        let text = format!("{text}; expected {}", setting.expects);
        self.doubts.push(Mistake { subject: setting.name.to_owned(), text });
    }

    /// Returns what was read so far, by name, secrets hidden.
    pub fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.readings.values()
    }

    /// The configuration, if there was no mistake.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn finish<T>(self, config: Option<T>) -> Result<T, Mistakes> {
        // Without the file nothing else is certain: what it may have said would be called missing.
        let mistakes = self.no_toml.map_or(self.mistakes, |mistake| vec![mistake]);
        match (Mistakes::new(mistakes), config) {
            (Some(mistakes), _) => Err(mistakes),
            (None, Some(config)) => Ok(config),
            (None, None) => Err(Mistakes::one("settings", "a part of them was not read")),
        }
    }

    /// Works like [`Values::finish`], but what nobody can mean is a mistake as well.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn finish_strictly<T>(mut self, config: Option<T>) -> Result<T, Mistakes> {
        self.mistakes.append(&mut self.doubts);
        self.finish(config)
    }

    fn text(&mut self, setting: Setting) -> Option<Option<String>> {
        if self.not_unicode.contains(setting.name) {
            self.mistake(setting, "is not UTF-8");
            return None;
        }
        if let Some(named) = self.named_file(setting) {
            return named.map(Some);
        }
        let found = self.layers.find_value(setting.key).ok();
        let layer = found.as_ref().map(|value| self.layer_of(value));
        let text = match found.as_ref().map(as_text) {
            None => None,
            Some(Some(text)) => Some(text),
            Some(None) => {
                self.mistake(setting, "is a table or a list of lists");
                return None;
            }
        };
        self.digests.insert(setting.name, digest(text.as_deref()));
        let shown = text.as_ref().map(|text| match setting.kind {
            SettingKind::Plain => text.clone(),
            SettingKind::Secret => "set".to_owned(),
        });
        self.readings.insert(setting.name, Reading { setting, layer, shown });
        Some(text)
    }

    /// The content of the file that `X_FILE` names for the secret `X`; `None` when none is named. The inner `None` is a
    /// mistake, already noted.
    fn named_file(&mut self, setting: Setting) -> Option<Option<String>> {
        let (name, key) = setting.file().filter(|(name, key)| self.has(name, key))?;
        let found = self.layers.find_value(key).ok();
        let path = found.as_ref().and_then(as_text);
        let content = match path.as_deref() {
            None => Err("is no path".to_owned()),
            Some(_) if self.has(setting.name, setting.key) => Err(format!("is set, and so is {}", setting.name)),
            Some(path) => secret_in(Path::new(path), self.pipes).map_err(|why| format!("{path:?} {why}")),
        };
        match content {
            Ok(secret) => {
                self.digests.insert(setting.name, digest(Some(&secret)));
                self.secret_files.extend(path.map(PathBuf::from));
                let layer = found.as_ref().map(|value| format!("{name} of {}", self.layer_of(value)));
                self.readings.insert(setting.name, Reading { setting, layer, shown: Some("set".to_owned()) });
                Some(Some(secret))
            }
            Err(why) => {
                let text = format!("{why}; expected one of the two: {}, or here a file that holds it", setting.name);
                self.mistakes.push(Mistake { subject: name.to_owned(), text });
                Some(None)
            }
        }
    }

    /// Returns the way these settings are read again; `None` when they are not those of the process.
    pub fn again(&self) -> Option<Again> {
        self.again.clone()
    }

    /// The same settings, which can be read again like this.
    #[must_use]
    pub(crate) fn read_again_by(mut self, again: Again) -> Self {
        self.again = Some(again);
        self
    }

    /// The same settings, read when what came through pipes has been read already.
    #[must_use]
    pub(super) fn after_pipes(mut self) -> Self {
        self.pipes = Pipes::Drained;
        self
    }

    /// The file that they were read from.
    pub fn file(&self) -> Option<&File> {
        self.file.as_ref()
    }

    /// The files that were read for a secret each.
    pub(crate) fn secret_files(&self) -> &[PathBuf] {
        &self.secret_files
    }

    pub(super) const fn digests(&self) -> &BTreeMap<&'static str, [u8; 32]> {
        &self.digests
    }

    pub(super) fn note(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
    }

    /// Notes what is wrong at a place of a list, `routes[2].path`, that entries only say together.
    pub fn mistake_at(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.note(Mistake { subject: place.into(), text: text.into() });
    }

    /// Does as [`Values::doubt`] at a place in a list.
    pub fn doubt_at(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.doubts.push(Mistake { subject: place.into(), text: text.into() });
    }

    /// A list as it was written, for `entries`; an empty one when it is unset. `None` is a mistake, already noted.
    pub(super) fn listed(&mut self, setting: Setting) -> Option<Value> {
        if self.not_unicode.contains(setting.name) {
            self.mistake(setting, "is not UTF-8");
            return None;
        }
        let found = self.layers.find_value(setting.key).ok();
        let layer = found.as_ref().map(|value| self.layer_of(value));
        let written = found.as_ref().and_then(|value| serde_json::to_string(value).ok());
        self.digests.insert(setting.name, digest(written.as_deref()));
        let shown = found.as_ref().map(|value| match value {
            Value::Array(_, list) => format!("{} entries", list.len()),
            _ => "a JSON array".to_owned(),
        });
        self.readings.insert(setting.name, Reading { setting, layer, shown });
        Some(found.unwrap_or_else(|| Value::from(Vec::<Value>::new())))
    }

    fn layer_of(&self, value: &Value) -> String {
        self.layers.get_metadata(value.tag()).map_or(DEFAULT_LAYER, |metadata| &metadata.name).to_owned()
    }

    fn add_file(&mut self, File { name, text }: &File) {
        match toml::from_str::<toml::Table>(text) {
            Err(error) => {
                let before = error.span().and_then(|span| text.get(..span.start));
                let at = before.map_or(String::new(), |before| {
                    let line = before.rsplit('\n').next().unwrap_or(before);
                    format!(" in line {}, column {}", before.matches('\n').count() + 1, line.chars().count() + 1)
                });
                let text = format!("is not TOML{at}: {}", error.message());
                self.no_toml = Some(Mistake { subject: name.clone(), text });
            }
            Ok(table) => {
                self.mistakes.extend(
                    unknown_keys("", &table)
                        .into_iter()
                        .map(|key| Mistake { subject: name.clone(), text: unknown_key(&key) }),
                );
                self.layers = std::mem::take(&mut self.layers).merge(NamedLayer(name.clone(), text));
            }
        }
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the layers: they hold the secrets.
        out.debug_struct("Values").field("mistakes", &self.mistakes).finish_non_exhaustive()
    }
}

/// Returns the text for a wrong value, repeating it only when it may be seen.
fn wrong(setting: Setting, text: &str, error: &impl Display) -> String {
    match setting.kind {
        SettingKind::Secret => "is not valid".to_owned(),
        SettingKind::Plain => {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            let more = if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "…" } else { "" };
            format!("{shown:?}{more} is wrong: {error}")
        }
    }
}

/// A scalar as its text, a list as its texts joined by commas.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, text) => Some(text.to_string()),
        Value::Bool(_, value) => Some(value.to_string()),
        Value::Num(_, number) => Some(number_as_text(*number)),
        Value::Array(_, items) if items.iter().all(|item| !matches!(item, Value::Array(..) | Value::Dict(..))) => {
            Some(items.iter().filter_map(as_text).collect::<Vec<_>>().join(","))
        }
        Value::Array(..) | Value::Dict(..) | Value::Empty(..) => None,
    }
}

fn number_as_text(number: Num) -> String {
    match (number.to_i128(), number.to_u128(), number.to_f64()) {
        (Some(whole), _, _) => whole.to_string(),
        (None, Some(whole), _) => whole.to_string(),
        (None, None, Some(places)) => places.to_string(),
        (None, None, None) => String::new(),
    }
}

/// The lists of tables.
const LISTS: [Setting; 2] = [table::UPSTREAMS, table::ROUTES];

/// The dotted keys of a table that are no setting.
fn unknown_keys(prefix: &str, table: &toml::Table) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let is_setting = table::ALL
            .iter()
            .any(|setting| setting.key == key || setting.file().is_some_and(|(_, file_key)| file_key == key));
        let is_section = table::ALL
            .iter()
            .any(|setting| setting.key.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.')));
        match value {
            // A list that is written as one table: whoever reads it says so.
            toml::Value::Table(_) if LISTS.iter().any(|list| list.key == key) => {}
            toml::Value::Table(inner) if !inner.is_empty() => unknown.extend(unknown_keys(&key, inner)),
            toml::Value::Table(_) if is_section => {}
            _ if is_setting => {}
            _ => unknown.push(key),
        }
    }
    unknown
}

fn unknown_key(key: &str) -> String {
    if later::is_key(key) {
        return format!("`{key}` is a setting that this version does not have; expected the file without it");
    }
    format!("unknown key `{key}`; the nearest known one is `{}`", nearest::known_key(key))
}

/// A TOML text as a layer with a name of its own.
struct NamedLayer<'a>(String, &'a str);

/// The environment as a layer: the variables of the table, each at its key.
struct EnvironmentLayer(Dict);

impl Provider for EnvironmentLayer {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT_LAYER)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

impl Provider for NamedLayer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict: Dict = toml::from_str(self.1).map_err(|error| figment::Error::from(error.to_string()))?;
        Ok(Profile::Default.collect(dict))
    }
}

/// The settings that a process environment holds.
struct Variables {
    layer: EnvironmentLayer,
    /// Variables of the table whose value is not UTF-8.
    not_unicode: BTreeSet<&'static str>,
    /// Variables that this version does not have.
    mistakes: Vec<Mistake>,
    /// Variables that are nearly one of the table.
    warnings: Vec<String>,
}

fn variables<K, V>(environment: impl IntoIterator<Item = (K, V)>) -> Variables
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut dict = Dict::new();
    let (mut not_unicode, mut mistakes, mut warnings) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (name, value) in environment {
        let (name, value) = (name.into(), value.into());
        if let Some(name) = name.to_str().filter(|name| later::is_variable(name)) {
            if !value.to_string_lossy().trim().is_empty() {
                mistakes.push(later::given(name));
            }
            continue;
        }
        let Some((known, key)) = known(&name) else {
            warnings.extend(name.to_str().and_then(misspelt));
            continue;
        };
        match value.into_string() {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => insert(&mut dict, key, text),
            Err(_) => {
                not_unicode.insert(known);
            }
        }
    }
    warnings.sort();
    mistakes.sort_by(|one, other| one.subject.cmp(&other.subject));
    Variables { layer: EnvironmentLayer(dict), not_unicode, mistakes, warnings }
}

/// The variable of the table by this name, and its key.
fn known(name: &OsString) -> Option<(&'static str, &'static str)> {
    table::ALL.iter().find_map(|setting| {
        let itself = (setting.name, setting.key);
        std::iter::once(itself).chain(setting.file()).find(|(known, _)| name == known)
    })
}

fn misspelt(name: &str) -> Option<String> {
    if nearest::variables().any(|known| known == name) {
        return None;
    }
    let known = nearest::known_variable(name)?;
    Some(format!("the variable {name} is no setting and changes nothing; the nearest known one is {known}"))
}

/// A secret that has a file of its own: all of it, but for the newline that editors end a file with.
fn secret_in(path: &Path, pipes: Pipes) -> Result<String, String> {
    let read = read_file_or_pipe(path, NAMED_FILE_BYTES_MAX, pipes);
    let bytes = read.map_err(|error| format!("can't be read: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| "does not hold UTF-8".to_owned())?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    if secret.trim().is_empty() { Err("holds nothing".to_owned()) } else { Ok(secret.to_owned()) }
}

fn digest(value: Option<&str>) -> [u8; 32] {
    Sha256::digest(format!("{value:?}").as_bytes()).into()
}

/// Puts a text at a dotted key.
fn insert(dict: &mut Dict, key: &str, text: String) {
    match key.split_once('.') {
        None => {
            dict.insert(key.to_owned(), Value::from(text));
        }
        Some((section, rest)) => {
            let inner = dict.entry(section.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, text);
            }
        }
    }
}
