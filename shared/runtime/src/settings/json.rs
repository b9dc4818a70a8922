//! Lists of settings as JSON, read so that a member that is written twice is noticed: of the two, JSON itself lets the last one
//! count, and nobody can tell which was meant. TOML refuses such a text by itself.

use std::fmt;

use figment::value::{Dict, Empty, Tag, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A list, and the places of members that are in it twice.
pub(super) struct JsonList {
    pub(super) value: Value,
    pub(super) twice: Vec<String>,
}

/// Reads a text; places begin with `name`, as `routes[2].path` does.
pub(super) fn read(text: &str, name: &str) -> Result<JsonList, serde_json::Error> {
    let mut twice = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = JsonPlace { path: name.to_owned(), twice: &mut twice }.deserialize(&mut reader)?;
    reader.end()?;
    Ok(JsonList { value, twice })
}

struct JsonPlace<'a> {
    path: String,
    twice: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for JsonPlace<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonPlace<'_> {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Empty(Tag::Default, Empty::Unit))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match list.next_element_seed(JsonPlace { path, twice: &mut *self.twice })? {
                Some(item) => items.push(item),
                None => return Ok(Value::from(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut dict = Dict::new();
        while let Some(name) = members.next_key::<String>()? {
            let path = format!("{}.{name}", self.path);
            let value = members.next_value_seed(JsonPlace { path: path.clone(), twice: &mut *self.twice })?;
            if dict.insert(name, value).is_some() && !self.twice.contains(&path) {
                self.twice.push(path);
            }
        }
        Ok(Value::from(dict))
    }
}
