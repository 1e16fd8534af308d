//! What stands between a browser and the API: whose name it was called by, where a write comes from, and what the page may do.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower_http::csrf::ProtectionError;

use super::{Api, error::Error, listener::Remote};
use crate::{config::Listen, domain::Refusal};

/// For what is no page: it loads nothing and is shown in no frame.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A page's `Content-Security-Policy`: everything from here, no script in the page, styles in the page only with the nonce. A handler that
/// answers with a page sets it; other answers get one that allows nothing.
#[allow(dead_code, reason = "the pages come with the dashboard")]
pub(super) fn page_policy(nonce: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; \
         connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// What the configuration says of clients.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    /// Names by which browsers may call us, in lower case.
    names: Vec<String>,
    proxies: Vec<IpAddr>,
}

impl Clients {
    pub(super) fn new(listen: &Listen) -> Self {
        Self { names: listen.host_names(), proxies: listen.trusted_proxies.clone() }
    }

    /// A page of another name that was made to lead here (DNS rebinding) has that name in `Host`. An address cannot be made to lead
    /// elsewhere, so each is good.
    fn knows(&self, host: &Authority) -> bool {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.parse::<IpAddr>().is_ok() || self.names.iter().any(|known| known.eq_ignore_ascii_case(name.trim_end_matches('.')))
    }

    /// The client behind a proxy that is trusted: the last address that is not a trusted proxy's. What stands before it in
    /// X-Forwarded-For, anybody can have written.
    fn behind(&self, remote: Remote, headers: &HeaderMap) -> Remote {
        if !self.proxies.contains(&remote.address) {
            return remote;
        }
        let secure = remote.secure || headers.get("x-forwarded-proto").is_some_and(|value| value == "https");
        let told: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(',')).collect();
        let mut address = remote.address;
        for text in told.iter().rev() {
            let Ok(next) = text.trim().parse::<IpAddr>() else { break };
            address = next.to_canonical();
            if !self.proxies.contains(&address) {
                break;
            }
        }
        Remote { address, secure, uid: None }
    }
}

/// Checks what comes over TCP, and sets the headers of every answer.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let mut secure = false;
    if let Some(remote) = request.extensions().get::<Remote>().copied() {
        let remote = api.clients.behind(remote, request.headers());
        secure = remote.secure;
        request.extensions_mut().insert(remote);
        match host(request.uri(), request.headers()) {
            Some(host) if api.clients.knows(&host) => {}
            _ => return dressed(misdirected().into_response(), secure),
        }
    }
    dressed(next.run(request).await, secure)
}

fn misdirected() -> Error {
    let detail = "this service does not go by that name";
    Error::new(StatusCode::MISDIRECTED_REQUEST, Refusal::Invalid, "unknown_host", detail)
        .hint("use a name of [listen] names in server.toml, localhost, or an address")
}

fn dressed(mut response: Response, secure: bool) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        // A handler that set one meant it.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, NOTHING);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::CACHE_CONTROL, "no-store");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if secure {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

/// The refusal of a write that another site's page sent.
pub(super) fn cross_site(_: ProtectionError) -> Response {
    foreign().into_response()
}

fn foreign() -> Error {
    Error::new(StatusCode::FORBIDDEN, Refusal::NotPermitted, "cross_site", "the request comes from another site's page")
}

/// Refuses a WebSocket that another site's page opens: browsers send cookies with those, and no other check of theirs stands before it.
/// Programs send no Origin; a cookie without one is no browser's.
pub(super) fn check_origin(uri: &Uri, headers: &HeaderMap, by_cookie: bool) -> Result<(), Error> {
    let origin = match headers.get(header::ORIGIN) {
        Some(value) => value.to_str().ok().and_then(|text| text.split_once("://")),
        None if by_cookie => None,
        None => return Ok(()),
    };
    let ours = host(uri, headers);
    match (origin, ours) {
        (Some(("http" | "https", authority)), Some(ours)) if authority.eq_ignore_ascii_case(ours.as_str()) => Ok(()),
        _ => Err(foreign()),
    }
}

/// The name we were called by.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    if let Some(authority) = uri.authority() {
        return Some(authority.clone());
    }
    let mut all = headers.get_all(header::HOST).iter();
    let (first, None) = (all.next()?, all.next()) else { return None };
    first.to_str().ok()?.parse().ok().filter(|authority: &Authority| !authority.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients() -> Clients {
        Clients::new(&Listen {
            names: vec!["Berth.example.org".to_owned()],
            trusted_proxies: vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()],
            ..Listen::default()
        })
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn we_go_by_our_names_and_by_addresses_alone() {
        let clients = clients();
        for good in ["localhost", "localhost:8470", "127.0.0.1:8470", "[::1]:8470", "berth.example.org", "BERTH.example.org.:443"] {
            assert!(clients.knows(&good.parse().unwrap()), "{good}");
        }
        for bad in ["evil.example.org", "localhost.evil.org", "127.0.0.1.evil.org:8470", "org"] {
            assert!(!clients.knows(&bad.parse().unwrap()), "{bad}");
        }
        assert_eq!(host(&Uri::from_static("/x"), &headers(&[])), None);
        assert_eq!(host(&Uri::from_static("/x"), &headers(&[("host", "a@localhost")])), None);
    }

    #[test]
    fn only_a_trusted_proxy_tells_of_others() {
        let clients = clients();
        let remote = |address: &str| Remote { address: address.parse().unwrap(), secure: false, uid: None };
        let told = headers(&[("x-forwarded-for", "1.1.1.1, 192.0.2.7, 10.0.0.2"), ("x-forwarded-proto", "https")]);
        assert_eq!(clients.behind(remote("192.0.2.1"), &told), remote("192.0.2.1"));
        assert_eq!(clients.behind(remote("10.0.0.1"), &told), Remote { secure: true, ..remote("192.0.2.7") });
        assert_eq!(clients.behind(remote("10.0.0.1"), &headers(&[("x-forwarded-for", "nonsense")])), remote("10.0.0.1"));
    }

    #[test]
    fn a_websocket_of_another_site_is_refused() {
        let uri = Uri::from_static("/");
        let check = |pairs: &[(&'static str, &'static str)], cookie| check_origin(&uri, &headers(pairs), cookie).is_ok();
        assert!(check(&[("host", "localhost:8470"), ("origin", "http://localhost:8470")], true));
        for foreign in ["http://localhost:8471", "http://evil.org", "null", "file://localhost:8470", "localhost:8470"] {
            assert!(!check(&[("host", "localhost:8470"), ("origin", foreign)], true), "{foreign}");
        }
        assert!(!check(&[("host", "localhost:8470")], true));
        assert!(check(&[("host", "localhost:8470")], false));
    }
}
