//! Where values come from, and how a program asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::{self, Display};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Num, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::file::File;
use super::mistakes::{Mistake, Mistakes};
use super::table::{self, Kind, Setting};
use super::{DEFAULT_TOML, FILE_NAME, nearest};

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
    readings: BTreeMap<&'static str, Reading>,
}

/// One setting as it was read, for `check-config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The setting.
    pub setting: Setting,
    /// `environment`, the file's name or `default`; `None` = it has no value.
    pub layer: Option<String>,
    /// The value; `[secret]` for one that must not be seen.
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

    /// As [`Values::load`], with a file that may have a name of its own.
    pub fn load_file<K, V>(environment: impl IntoIterator<Item = (K, V)>, file: Option<File>) -> Self
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let (environment, not_unicode) = environment_layer(environment);
        let mut values = Self {
            layers: Figment::from(Named(DEFAULT_LAYER.to_owned(), DEFAULT_TOML)),
            not_unicode,
            mistakes: Vec::new(),
            readings: BTreeMap::new(),
        };
        if let Some(file) = file {
            values.add_file(&file);
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

    /// Reads a value, or takes the program's own default.
    pub fn or_default<T, E: Display>(
        &mut self,
        setting: Setting,
        parse: impl FnOnce(&str) -> Result<T, E>,
        default: T,
    ) -> Option<T> {
        self.optional(setting, parse).map(|value| value.unwrap_or(default))
    }

    /// Whether the file or the environment sets it.
    pub fn is_set(&self, setting: Setting) -> bool {
        self.not_unicode.contains(setting.name)
            || self.layers.find_value(setting.key).is_ok_and(|value| self.layer_of(&value) != DEFAULT_LAYER)
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

    /// What was read so far, by name, secrets hidden.
    pub fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.readings.values()
    }

    /// The configuration, if there was no mistake.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn finish<T>(self, config: Option<T>) -> Result<T, Mistakes> {
        match (Mistakes::new(self.mistakes), config) {
            (Some(mistakes), _) => Err(mistakes),
            (None, Some(config)) => Ok(config),
            (None, None) => Err(Mistakes::one("settings", "a part of them was not read")),
        }
    }

    fn text(&mut self, setting: Setting) -> Option<Option<String>> {
        if self.not_unicode.contains(setting.name) {
            self.mistake(setting, "is not UTF-8");
            return None;
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
        let shown = text.as_ref().map(|text| match setting.kind {
            Kind::Plain => text.clone(),
            Kind::Secret => "[secret]".to_owned(),
        });
        self.readings.insert(setting.name, Reading { setting, layer, shown });
        Some(text)
    }

    fn layer_of(&self, value: &Value) -> String {
        self.layers.get_metadata(value.tag()).map_or(DEFAULT_LAYER, |metadata| &metadata.name).to_owned()
    }

    fn add_file(&mut self, File { name, text }: &File) {
        match toml::from_str::<toml::Table>(text) {
            Err(error) => {
                let line =
                    error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count());
                let at = line.map_or(String::new(), |line| format!(" in line {}", line + 1));
                let text = format!("is not TOML{at}: {}", error.message());
                self.mistakes.push(Mistake { subject: name.clone(), text });
            }
            Ok(table) => {
                self.mistakes.extend(unknown_keys("", &table).into_iter().map(|key| Mistake {
                    subject: name.clone(),
                    text: format!("unknown key `{key}`; the nearest known one is `{}`", nearest::known_key(&key)),
                }));
                self.layers = std::mem::take(&mut self.layers).merge(Named(name.clone(), text));
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

/// What is wrong with a value, repeating it only when it may be seen.
fn wrong(setting: Setting, text: &str, error: &impl Display) -> String {
    match setting.kind {
        Kind::Secret => "is not valid".to_owned(),
        Kind::Plain => {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            let more = if text.chars().nth(SHOWN_CHARS_MAX).is_some() { "…" } else { "" };
            format!("{shown:?}{more} is wrong: {error}")
        }
    }
}

/// A scalar as its text, a list as its texts joined by commas.
fn as_text(value: &Value) -> Option<String> {
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

/// The dotted keys of a table that are no setting.
fn unknown_keys(prefix: &str, table: &toml::Table) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        let is_setting = table::ALL.iter().any(|setting| setting.key == key);
        let is_section = table::ALL
            .iter()
            .any(|setting| setting.key.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.')));
        match value {
            toml::Value::Table(inner) if !inner.is_empty() => unknown.extend(unknown_keys(&key, inner)),
            toml::Value::Table(_) if is_section => {}
            _ if is_setting => {}
            _ => unknown.push(key),
        }
    }
    unknown
}

/// A TOML text as a layer with a name of its own.
struct Named<'a>(String, &'a str);

/// The environment as a layer: the variables of the table, each at its key.
struct Environment(Dict);

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named(ENVIRONMENT_LAYER)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

impl Provider for Named<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.0.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(self.1).data()
    }
}

/// The layer of the environment, and the variables of the table whose value is not UTF-8.
fn environment_layer<K, V>(environment: impl IntoIterator<Item = (K, V)>) -> (Environment, BTreeSet<&'static str>)
where
    K: Into<OsString>,
    V: Into<OsString>,
{
    let mut dict = Dict::new();
    let mut not_unicode = BTreeSet::new();
    for (name, value) in environment {
        let name = name.into();
        let Some(setting) = table::ALL.iter().find(|setting| name == setting.name) else {
            continue;
        };
        match value.into().into_string() {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => insert(&mut dict, setting.key, text),
            Err(_) => {
                not_unicode.insert(setting.name);
            }
        }
    }
    (Environment(dict), not_unicode)
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
