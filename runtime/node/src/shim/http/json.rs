//! The few fields of bodies that are looked at. Names are matched as Go does: in any case.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::describe::clean;

/// Longest value that is kept, in bytes.
const MOST: usize = 256;

/// A text field of a JSON object; nothing else of the object is kept.
pub(super) fn text(body: &[u8], field: &'static str) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    reader.deserialize_map(Field(field)).ok().flatten().map(|value| clean(&value, MOST))
}

struct Field(&'static str);

impl<'de> Visitor<'de> for Field {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(name) = map.next_key::<String>()? {
            if name.eq_ignore_ascii_case(self.0) {
                found = map.next_value::<Text>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A text, or something else that is passed over.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(Some(text))),
            _ => Ok(Self(None)),
        }
    }
}

/// Directories that the body of a create call wants to bind.
pub(crate) fn binds(body: &[u8]) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return Vec::new() };
    let Some(host) = field(&body, "HostConfig") else { return Vec::new() };
    let list = |name| field(host, name).and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, name| field(value, name).and_then(Value::as_str).map(str::to_owned);
    let short = list("Binds").filter_map(Value::as_str).filter_map(|bind| bind.split(':').next()).map(str::to_owned);
    let long = list("Mounts").filter(|m| text(m, "Type").as_deref() == Some("bind")).filter_map(|m| text(m, "Source"));
    short.chain(long).filter(|path| path.starts_with('/')).collect()
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object()?.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x11_of_a_create_call_only_the_image_is_taken() {
        let body = br#"{"Env":["PASSWORD=secret"],"Cmd":["Image"],"image":"busybox","HostConfig":{"Image":"no"}}"#;
        assert_eq!(text(body, "Image").unwrap(), "busybox");
        for none in [&b"{}"[..], b"[1]", b"{\"Image\": 3}", b"{\"Image\": \"x", b"", b"\xff"] {
            assert_eq!(text(none, "Image"), None);
        }
        assert_eq!(text(format!(r#"{{"Image":"{}\u001b"}}"#, "x".repeat(300)).as_bytes(), "Image").unwrap().len(), MOST + "…".len());
    }

    #[test]
    fn h02_binds_are_found_in_both_forms() {
        let body = br#"{"Image":"a","hostconfig":{"Binds":["/home/a/x:/w:ro","volume:/v"],"Mounts":[{"Type":"bind","source":"/home/b"},
            {"Type":"volume","Source":"/no"},{"Type":"tmpfs"}]}}"#;
        assert_eq!(binds(body), ["/home/a/x", "/home/b"]);
        assert!(binds(b"{\"HostConfig\":{\"Binds\":null}}").is_empty());
    }
}
