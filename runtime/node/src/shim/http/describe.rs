//! What a call is about: from its request line, and no more of it than may be kept.

/// Query parameters that hold no secret. Everything else (build arguments, filters, sources with a password in them, changes) is left out.
const PARAMETERS: &[&str] = &[
    "all",
    "cause",
    "condition",
    "container",
    "copyUIDGID",
    "details",
    "detachKeys",
    "digests",
    "dockerfile",
    "follow",
    "force",
    "forcerm",
    "from",
    "fromImage",
    "h",
    "limit",
    "link",
    "logs",
    "manifests",
    "name",
    "names",
    "nocache",
    "noOverwriteDirNonDir",
    "noprune",
    "one-shot",
    "path",
    "platform",
    "pull",
    "q",
    "quiet",
    "repo",
    "rm",
    "shared-size",
    "signal",
    "since",
    "size",
    "stderr",
    "stdin",
    "stdout",
    "stream",
    "t",
    "tag",
    "tail",
    "target",
    "timestamps",
    "type",
    "until",
    "v",
    "version",
    "w",
];
/// Longest path that is kept, and longest value of a parameter, in bytes.
const MOST_PATH: usize = 2048;
const MOST_VALUE: usize = 256;
/// Longest method.
const MOST_METHOD: usize = 32;

/// A call, as far as its request line tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) method: String,
    /// With the parameters that may be kept.
    pub(super) path: String,
    pub(super) image: Option<String>,
    pub(super) container: Option<String>,
    /// It makes a container: its body names the image, its answer the container.
    pub(super) creates: bool,
    /// An old client's call that turns into a stream without being asked to.
    pub(super) hijacks: bool,
    /// It looks at what is there: polled by editors, and no use of the berth.
    pub(super) looks: bool,
}

/// Reads a request line.
pub(super) fn describe(method: &str, target: &str) -> Description {
    let target = origin(target);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    let words = match words.split_first() {
        Some((first, rest)) if is_version(first) => rest,
        _ => &words[..],
    };
    let parameter = |name| parameters(query).find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty());
    let mut description = Description {
        method: clean(method, MOST_METHOD),
        path: kept(path, query),
        looks: matches!(method, "GET" | "HEAD") && looks(words),
        ..Description::default()
    };
    let post = method == "POST";
    match words {
        ["containers", "create"] if post => {
            description.creates = true;
            description.container = parameter("name").map(decoded);
        }
        ["containers", "json" | "prune"] => {}
        ["containers", id, action @ ..] => {
            description.container = Some(decoded(id));
            description.hijacks = post && action == ["attach"];
        }
        ["exec", _, "start"] => description.hijacks = post,
        ["images", "create"] => description.image = parameter("fromImage").map(|name| tagged(name, parameter("tag"))),
        ["images", "json" | "search" | "load" | "prune"] | ["images", "get"] => {}
        ["images", name @ .., "json" | "history" | "push" | "tag" | "get"] => {
            description.image = Some(tagged(&name.join("/"), parameter("tag")))
        }
        ["images", name @ ..] if method == "DELETE" => description.image = Some(decoded(&name.join("/"))),
        ["distribution", name @ .., "json"] => description.image = Some(decoded(&name.join("/"))),
        ["build"] => description.image = parameter("t").map(decoded),
        ["commit"] => {
            description.container = parameter("container").map(decoded);
            description.image = parameter("repo").map(|name| tagged(name, parameter("tag")));
        }
        _ => {}
    }
    description
}

/// `http://host/path` → `/path`.
fn origin(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    }
}

/// `v1.41`
fn is_version(word: &str) -> bool {
    word.strip_prefix('v').is_some_and(|v| v.contains('.') && v.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn looks(words: &[&str]) -> bool {
    matches!(
        words,
        ["_ping"
            | "version"
            | "info"
            | "events"
            | "volumes"
            | "networks"
            | "nodes"
            | "services"
            | "tasks"
            | "secrets"
            | "configs"
            | "plugins"
            | "swarm"]
            | ["system", "df"]
            | ["containers" | "images", "json"]
            | ["containers" | "exec" | "plugins", _, "json"]
            | ["images" | "distribution", .., "json"]
            | ["images", .., "history"]
            | ["volumes" | "networks" | "nodes" | "services" | "tasks" | "secrets" | "configs", _]
    )
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn kept(path: &str, query: &str) -> String {
    let mut kept = clean(path, MOST_PATH);
    let mut mark = '?';
    for (name, value) in parameters(query).filter(|(name, _)| PARAMETERS.contains(name)) {
        let value = clean(value, MOST_VALUE);
        if kept.len() + name.len() + value.len() + 2 > MOST_PATH {
            break;
        }
        kept.push(mark);
        kept.push_str(name);
        kept.push('=');
        kept.push_str(&value);
        mark = '&';
    }
    kept
}

/// `NAME:TAG`, or `NAME@DIGEST`.
fn tagged(name: &str, tag: Option<&str>) -> String {
    let name = decoded(name);
    match tag.map(decoded) {
        Some(digest) if digest.contains(':') => format!("{name}@{digest}"),
        Some(tag) => format!("{name}:{tag}"),
        None => name,
    }
}

/// Percent escapes opened up, for the fields that are compared.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return clean(text, MOST_VALUE);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|&b| char::from(b).to_digit(16));
    let (bytes, mut plain, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                plain.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                plain.push(byte);
                at += 1;
            }
        }
    }
    clean(&String::from_utf8_lossy(&plain), MOST_VALUE)
}

/// Text without control characters, at most `most` bytes of it and three dots.
pub(crate) fn clean(text: &str, most: usize) -> String {
    let (text, cut) = match text.len() > most {
        true => (&text[..text.floor_char_boundary(most)], "…"),
        false => (text, ""),
    };
    let mut plain = String::with_capacity(text.len() + cut.len());
    for c in text.chars() {
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain.push_str(cut);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x11_image_and_container_are_read_from_the_path() {
        let about = |method: &str, target: &str| {
            let description = describe(method, target);
            (description.image.unwrap_or_default(), description.container.unwrap_or_default())
        };
        let own = |image: &str, container: &str| (image.to_owned(), container.to_owned());
        assert_eq!(about("POST", "/v1.41/containers/create?name=web"), own("", "web"));
        assert_eq!(about("POST", "/containers/abc/start"), own("", "abc"));
        assert_eq!(about("DELETE", "/v1.47/containers/abc?force=1"), own("", "abc"));
        assert_eq!(about("GET", "/containers/json"), own("", ""));
        assert_eq!(about("POST", "/images/create?fromImage=library%2Fnginx&tag=1.2"), own("library/nginx:1.2", ""));
        assert_eq!(about("POST", "/images/create?tag=sha256%3Aab&fromImage=nginx"), own("nginx@sha256:ab", ""));
        assert_eq!(about("GET", "/v1.41/images/localhost:5000/a/b:c/json"), own("localhost:5000/a/b:c", ""));
        assert_eq!(about("DELETE", "/images/a%2Fb"), own("a/b", ""));
        assert_eq!(about("POST", "http://user:password@host/v1.41/build?t=a&t=b"), own("a", ""));
        assert_eq!(about("POST", "/commit?container=c&repo=r&tag=t"), own("r:t", "c"));
    }

    #[test]
    fn x11_the_path_keeps_its_escapes_and_loses_every_secret() {
        let path = |target: &str| describe("POST", target).path;
        assert_eq!(path("/v1.41/images/a%2Fb/tag?repo=x%2Fy&tag=z"), "/v1.41/images/a%2Fb/tag?repo=x%2Fy&tag=z");
        let build = "/build?t=a&buildargs=%7B%22PASSWORD%22%3A%22secret%22%7D&remote=https%3A%2F%2Fu%3Asecret%40h&labels=secret&filters=secret&X=secret&q=1";
        assert_eq!(path(build), "/build?t=a&q=1");
        assert_eq!(path("http://user:secret@host/info"), "/info");
        assert_eq!(path("/info#a\u{1b}[31m"), "/info#a\\u{1b}[31m");
        let long = format!("/containers/{}?name={}", "x".repeat(5000), "y".repeat(5000));
        assert!(path(&long).len() < MOST_PATH + 400 && path(&format!("/build?t={}", "y".repeat(5000))).len() < 400);
    }

    #[test]
    fn polls_of_editors_are_no_use_and_everything_else_is() {
        for look in [
            "/_ping",
            "/v1.41/version",
            "/info",
            "/events?since=1",
            "/v1.47/system/df",
            "/containers/json?all=1",
            "/containers/a/json",
            "/images/json",
            "/images/a/b/json",
            "/networks",
            "/networks/x",
            "/volumes",
            "/exec/a/json",
        ] {
            assert!(describe("GET", look).looks, "{look}");
        }
        assert!(describe("HEAD", "/_ping").looks);
        for used in [
            ("GET", "/containers/a/logs?follow=1"),
            ("POST", "/session"),
            ("GET", "/images/get?names=a"),
            ("POST", "/_ping"),
            ("GET", "/"),
            ("GET", "/containers/a/stats"),
        ] {
            assert!(!describe(used.0, used.1).looks, "{used:?}");
        }
    }

    #[test]
    fn what_may_become_a_stream_is_known() {
        for (method, target, hijacks) in [
            ("POST", "/v1.18/containers/a/attach?stream=1", true),
            ("POST", "/exec/a/start", true),
            ("GET", "/containers/a/attach/ws", false),
            ("POST", "/containers/a/start", false),
        ] {
            assert_eq!(describe(method, target).hijacks, hijacks, "{target}");
        }
    }
}
