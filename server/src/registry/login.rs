//! How a registry wants to be asked: with a name and a password, or with a token that another service gives for them.

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{
    Error,
    transport::{Origin, Place, Transport},
};
use crate::domain::Login;

/// Bytes of an answer with a token.
const ANSWER_BYTES: u64 = 1 << 20;

/// What a registry says that it wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Token { realm: String, service: Option<String> },
}

/// What is to stand in the header of further requests to `origin`, after it has refused one with `headers`.
pub(super) async fn answer(
    transport: &Transport,
    origin: &Origin,
    repository: &str,
    headers: &HeaderMap,
    login: Option<&Login>,
) -> Result<HeaderValue, Error> {
    let host = origin.to_string();
    let improper = |reason: &str| Error::Answer { host: host.clone(), reason: reason.to_owned() };
    let wanted = || Error::LoginWanted { host: host.clone(), repository: repository.to_owned() };
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    match texts.filter_map(challenge).max_by_key(|one| matches!(one, Challenge::Token { .. })) {
        None => Err(improper("it wants a login, and does not say which")),
        Some(Challenge::Basic) => login.map(basic).ok_or_else(wanted),
        Some(Challenge::Token { realm, service }) => {
            let mut place = Place::of(&realm, origin)?;
            let service = service.map(|service| format!("service={}&", encoded(&service))).unwrap_or_default();
            let separator = if place.path.contains('?') { '&' } else { '?' };
            place.path = format!("{}{separator}{service}scope={}", place.path, encoded(&format!("repository:{repository}:pull")));
            let headers: Vec<_> = login.map(|login| (AUTHORIZATION, basic(login))).into_iter().collect();
            let answer = transport.get(&place, &headers).await?;
            match answer.status {
                StatusCode::OK => {}
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if login.is_none() => return Err(wanted()),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    return Err(Error::LoginRefused { host: place.origin.to_string(), repository: repository.to_owned() });
                }
                status => return Err(Error::Status { host: place.origin.to_string(), status: status.as_u16() }),
            }
            let bytes = answer.whole("the answer with a token", ANSWER_BYTES).await?;
            let token: Token = serde_json::from_slice(&bytes).map_err(|_| improper("the token that belongs to it is not understood"))?;
            let text = token.token.or(token.access_token).filter(|text| !text.is_empty()).ok_or_else(|| improper("it gives no token"))?;
            let mut value = HeaderValue::try_from(format!("Bearer {text}")).map_err(|_| improper("its token is none"))?;
            value.set_sensitive(true);
            Ok(value)
        }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

fn basic(login: &Login) -> HeaderValue {
    let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", login.username, login.password)));
    // Base64 is always fit for a header.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// `Basic realm="x"` or `Bearer realm="…",service="…",scope="…"`; what else there is, is nothing for us.
fn challenge(text: &str) -> Option<Challenge> {
    let (scheme, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while let Some((key, after)) = rest.split_once('=') {
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let (value, after) = quoted.split_once('"')?;
                rest = after;
                value
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                rest = &after[end..];
                &after[..end]
            }
        };
        match key.trim_matches([',', ' ']).to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
    }
    realm.map(|realm| Challenge::Token { realm, service })
}

/// A value of a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |out, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b':' => format!("{out}{}", char::from(byte)),
        _ => format!("{out}%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let token =
            |realm: &str, service: Option<&str>| Some(Challenge::Token { realm: realm.to_owned(), service: service.map(str::to_owned) });
        assert_eq!(challenge("Basic realm=\"a b\""), Some(Challenge::Basic));
        let text = "Bearer realm=\"https://auth.example.org/token\",service=\"r.example.org\",scope=\"repository:a/b:pull,push\"";
        assert_eq!(challenge(text), token("https://auth.example.org/token", Some("r.example.org")));
        assert_eq!(challenge("bearer service=x, realm=\"https://a/t?b=c\""), token("https://a/t?b=c", Some("x")));
        for bad in ["", "Digest realm=\"x\"", "Bearer", "Bearer realm=\"x", "Bearer service=\"x\""] {
            assert_eq!(challenge(bad), None, "{bad}");
        }
        assert_eq!(encoded("repository:a/b c&d:pull"), "repository:a/b%20c%26d:pull");
    }
}
