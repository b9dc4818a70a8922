//! Settings that are lists of tables, `[[routes]]` and the like: each entry is read by itself, key by key, and each of its
//! mistakes is named by its place, `routes[2].upstream`.

use std::collections::BTreeSet;
use std::fmt::Display;

use figment::value::{Dict, Value};

use super::mistakes::Mistake;
use super::nearest::edit_distance;
use super::table::Setting;
use super::values::{Values, as_text};

/// The longest piece of a wrong value that an error repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// One table of a list, or one inside of it.
#[derive(Debug)]
pub struct Entry {
    /// `routes[2]`.
    place: String,
    keys: Dict,
    asked: BTreeSet<&'static str>,
    mistakes: Vec<Mistake>,
}

/// A key of an entry, and what would be right, to follow "expected".
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// The right form of a value.
    pub expects: &'static str,
}

impl Key {
    /// A key by this name.
    pub const fn new(name: &'static str, expects: &'static str) -> Self {
        Self { name, expects }
    }
}

impl Values {
    /// The entries of a list; none when it is unset. `None` is a mistake, already noted.
    pub fn entries(&mut self, setting: Setting, entries_max: usize) -> Option<Vec<Entry>> {
        let list = match self.listed(setting)? {
            Value::Array(_, list) => list,
            Value::String(_, text) => match serde_json::from_str::<Value>(&text) {
                Ok(Value::Array(_, list)) => list,
                Ok(_) => return self.no_list(setting, "is JSON but no array"),
                Err(error) => return self.no_list(setting, &format!("is not JSON: {error}")),
            },
            _ => return self.no_list(setting, "is no list"),
        };
        if list.len() > entries_max {
            return self.no_list(setting, &format!("has {} entries, more than {entries_max}", list.len()));
        }
        let mut entries = Vec::with_capacity(list.len());
        for (index, value) in list.into_iter().enumerate() {
            let place = format!("{}[{index}]", setting.key);
            match value {
                Value::Dict(_, keys) => entries.push(Entry::new(place, keys)),
                _ => self.note(Mistake { subject: place, text: format!("is no table; expected {}", setting.expects) }),
            }
        }
        Some(entries)
    }

    fn no_list(&mut self, setting: Setting, why: &str) -> Option<Vec<Entry>> {
        self.mistake(setting, why);
        None
    }

    /// Takes the mistakes of an entry of which everything was read, unknown keys included.
    pub fn close(&mut self, entry: Entry) {
        entry.finish().into_iter().for_each(|mistake| self.note(mistake));
    }
}

impl Entry {
    fn new(place: String, keys: Dict) -> Self {
        Self { place, keys, asked: BTreeSet::new(), mistakes: Vec::new() }
    }

    /// Where it stands: `routes[2]`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns whether a key is present.
    pub fn has(&self, key: Key) -> bool {
        self.keys.contains_key(key.name)
    }

    /// A value that must be there.
    pub fn required<T, E: Display>(&mut self, key: Key, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let value = self.optional(key, parse)?;
        if value.is_none() {
            self.mistake(key, "is missing");
        }
        value
    }

    /// A value that may be absent. The outer `None` is a mistake, already noted.
    pub fn optional<T, E: Display>(&mut self, key: Key, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<Option<T>> {
        let Some(value) = self.take(key) else { return Some(None) };
        let Some(text) = as_text(&value).filter(|_| !matches!(value, Value::Array(..))) else {
            self.mistake(key, "is a list or a table");
            return None;
        };
        self.parsed(key, &text, parse).map(Some)
    }

    /// The texts of a list, or one text alone; `None` when it is not there. The outer `None` is a mistake, already noted.
    pub fn list<T, E: Display>(
        &mut self,
        key: Key,
        mut parse: impl FnMut(&str) -> Result<T, E>,
    ) -> Option<Option<Vec<T>>> {
        let values = match self.take(key) {
            None => return Some(None),
            Some(Value::Array(_, values)) => values,
            Some(value) => vec![value],
        };
        if values.is_empty() {
            self.mistake(key, "is empty");
            return None;
        }
        let texts: Option<Vec<String>> = values.iter().map(as_text).collect();
        let Some(texts) = texts else {
            self.mistake(key, "holds a list or a table");
            return None;
        };
        let parsed: Vec<Option<T>> = texts.iter().map(|text| self.parsed(key, text, &mut parse)).collect();
        parsed.into_iter().collect::<Option<Vec<T>>>().map(Some)
    }

    /// A table inside; give it back to [`Entry::close`]. The outer `None` is a mistake, already noted.
    pub fn table(&mut self, key: Key) -> Option<Option<Self>> {
        match self.take(key) {
            None => Some(None),
            Some(Value::Dict(_, keys)) => Some(Some(Self::new(format!("{}.{}", self.place, key.name), keys))),
            Some(_) => {
                self.mistake(key, "is no table");
                None
            }
        }
    }

    /// Takes the mistakes of a table inside.
    pub fn close(&mut self, inner: Self) {
        self.mistakes.extend(inner.finish());
    }

    /// Notes what is wrong with a key.
    pub fn mistake(&mut self, key: Key, why: &str) {
        let text = format!("{why}; expected {}", key.expects);
        self.mistakes.push(Mistake { subject: format!("{}.{}", self.place, key.name), text });
    }

    /// Works like [`Entry::mistake`], for where nothing can be read on.
    pub fn mistaken<T>(&mut self, key: Key, why: &str) -> Option<T> {
        self.mistake(key, why);
        None
    }

    fn parsed<T, E: Display>(&mut self, key: Key, text: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        parse(text)
            .inspect_err(|error| {
                let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
                self.mistake(key, &format!("{shown:?} is wrong: {error}"));
            })
            .ok()
    }

    fn take(&mut self, key: Key) -> Option<Value> {
        self.asked.insert(key.name);
        self.keys.get(key.name).cloned()
    }

    fn finish(mut self) -> Vec<Mistake> {
        for unknown in self.keys.keys().filter(|key| !self.asked.contains(key.as_str())) {
            let nearest =
                self.asked.iter().min_by_key(|known| edit_distance(unknown, known)).copied().unwrap_or_default();
            self.mistakes.push(Mistake {
                subject: format!("{}.{unknown}", self.place),
                text: format!("is no key here; the nearest known one is `{nearest}`"),
            });
        }
        self.mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, table};
    use super::*;

    const NAME: Key = Key::new("name", "a name");
    const SECONDS: Key = Key::new("timeout_secs", "seconds");
    const HEALTH: Key = Key::new("health", "a table");
    const PATHS: Key = Key::new("paths", "paths");

    fn read(values: &mut Values) -> Vec<String> {
        let mut names = Vec::new();
        for mut entry in values.entries(table::UPSTREAMS, 3).unwrap_or_default() {
            names.extend(entry.required(NAME, parse::text));
            entry.optional(SECONDS, parse::seconds);
            entry.list(PATHS, parse::text);
            if let Some(Some(mut health)) = entry.table(HEALTH) {
                health.required(SECONDS, parse::seconds);
                entry.close(health);
            }
            values.close(entry);
        }
        names
    }

    #[test]
    fn the_environment_replaces_the_list_of_the_file() {
        let file = "[[upstreams]]\nname = \"a\"\ntimeout_secs = 5\n[[upstreams]]\nname = \"b\"\nhealth = { timeout_secs = 1 }\n";
        let mut values = Values::load::<&str, &str>([], Some(file));
        assert_eq!(read(&mut values), ["a", "b"]);
        values.finish(Some(())).unwrap();
        let json = r#"[{"name": "c", "timeout_secs": 0.5, "paths": ["/a", "/b"], "health": {"timeout_secs": 2}}]"#;
        let mut values = Values::load([("UPSTREAMS", json)], Some(file));
        assert_eq!(read(&mut values), ["c"]);
        values.finish(Some(())).unwrap();
    }

    #[test]
    fn every_mistake_is_named_by_its_place() {
        let file = "[[upstreams]]\nnam = \"a\"\ntimeout_secs = \"x\"\npaths = []\n[[upstreams]]\nname = 1\nhealth = { timeout = 1 }\n";
        let mut values = Values::load::<&str, &str>([], Some(file));
        read(&mut values);
        let mistakes = values.finish(Some(())).unwrap_err().to_string();
        for line in [
            "upstreams[0].name: is missing; expected a name",
            "upstreams[0].nam: is no key here; the nearest known one is `name`",
            "upstreams[0].timeout_secs: \"x\" is wrong: is not a number of seconds; expected seconds",
            "upstreams[0].paths: is empty; expected paths",
            "upstreams[1].health.timeout_secs: is missing; expected seconds",
            "upstreams[1].health.timeout: is no key here; the nearest known one is `timeout_secs`",
        ] {
            assert!(mistakes.contains(line), "{line} is not in\n{mistakes}");
        }
        for (json, why) in
            [("{}", "no array"), ("[", "is not JSON"), ("[1]", "[0]: is no table"), ("[{},{},{},{}]", "4 entries")]
        {
            let mut values = Values::load([("UPSTREAMS", json)], None);
            read(&mut values);
            let mistakes = values.finish(Some(())).unwrap_err().to_string();
            assert!(mistakes.contains(why), "{mistakes}");
        }
    }
}
