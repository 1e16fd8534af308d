use std::{fmt, str::FromStr};

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("the name is empty")]
    Empty,
    #[error("the name has {length} bytes, the most is {most}")]
    TooLong { length: usize, most: usize },
    #[error("the name {0:?} is a path, not a name")]
    Path(String),
    #[error("the name {name:?} has the character {character:?}, which is not allowed")]
    Character { name: String, character: char },
    #[error("the name {0:?} must not begin with this character")]
    Start(String),
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $most:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text, $most, $allowed)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Name of a host account: what NSS may hold, and safe as a file name. Whether it exists, the node says.
    UserName, 128, |c| !c.is_control() && !c.is_whitespace() && c != ':' && c != ','
}
name! {
    /// Name of a host group; whether it exists, the node says.
    GroupName, 128, |c| !c.is_control() && c != ':' && c != ','
}
name! {
    /// Name of a profile: letters, digits, `.`, `_`, `-`.
    ProfileName, 64, |c| c.is_ascii_alphanumeric() || "._-".contains(c)
}
name! {
    /// Name of an image: letters, digits, `.`, `_`, `-`, and `:` before a tag.
    ImageName, 128, |c| c.is_ascii_alphanumeric() || "._-:".contains(c)
}

name! {
    /// Name of an administrator, or of an API token: letters, digits, `.`, `_`, `-`, `@`.
    AccountName, 64, |c| c.is_ascii_alphanumeric() || "._-@".contains(c)
}

fn check(name: &str, most: usize, allowed: fn(char) -> bool) -> Result<(), InvalidName> {
    if name.is_empty() {
        return Err(InvalidName::Empty);
    }
    if name.len() > most {
        return Err(InvalidName::TooLong { length: name.len(), most });
    }
    if name == "." || name == ".." || name.contains('/') {
        return Err(InvalidName::Path(name.to_owned()));
    }
    if let Some(character) = name.chars().find(|c| !allowed(*c)) {
        return Err(InvalidName::Character { name: name.to_owned(), character });
    }
    match name.starts_with(['-', '.', ':']) {
        true => Err(InvalidName::Start(name.to_owned())),
        false => Ok(()),
    }
}

/// How a person points at an image: by name, or by its digest or the beginning of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRef(ImageName);

impl ImageRef {
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// True for the name, the whole digest, or at least 6 digits of its beginning, with or without `sha256:`.
    pub fn matches(&self, name: &str, digest: &str) -> bool {
        let text = self.as_str();
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        text == name || (digits.len() >= 6 && digest.strip_prefix("sha256:").unwrap_or(digest).starts_with(digits))
    }
}

impl FromStr for ImageRef {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_control_characters_and_long_names_are_refused() {
        for bad in ["", ".", "..", "a/b", "../etc", "a\0b", "a\nb", "a b", "a:b", "-rf", ".hidden", &"x".repeat(300)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        for good in ["alice", "alice.b", "ALICE", "jürgen", "a@example.org", "_x", "EXAMPLE\\bob", "host$"] {
            assert!(good.parse::<UserName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn an_image_is_found_by_name_digest_or_its_beginning() {
        let digest = "sha256:0123456789abcdef";
        for text in ["default", "sha256:0123456789abcdef", "012345", "sha256:012345"] {
            assert!(text.parse::<ImageRef>().unwrap().matches("default", digest), "{text}");
        }
        for text in ["defaul", "01234", "sha256:", "123456"] {
            assert!(!text.parse::<ImageRef>().unwrap().matches("default", digest), "{text}");
        }
    }
}
