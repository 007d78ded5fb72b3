//! The studio's address, and as a QR code by which a phone on the same network opens it.

use crate::app::App;
use crate::refusal::Refusal;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use qrcode::QrCode;
use qrcode::render::svg::Color;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Where a browser opens the studio, for a server that listens there with this token.
pub fn page_url(address: SocketAddr, token: Option<&str>) -> String {
    let host = if address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    };
    let token = token.map(|token| format!("?token={}", escaped(token)));
    format!("http://{host}/{}", token.unwrap_or_default())
}

/// For a query: everything but letters, digits and `-._~` in percent signs.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// `GET /studio/join`: the address that others on the network reach this server at, token and all, as an SVG.
pub(crate) async fn join(State(app): State<App>) -> Result<Response, Refusal> {
    let reached = reached(app.address).ok_or_else(|| {
        let message =
            "only this machine reaches this server: start it with `prima serve --host 0.0.0.0 --token SECRET`";
        Refusal::new(StatusCode::CONFLICT, message)
    })?;
    let url = page_url(reached, app.options.token.as_deref());
    let code = QrCode::new(&url).map_err(|_| Refusal::bad("the token is too long for a QR code"))?;
    let svg = code.render::<Color>().min_dimensions(240, 240).build();
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, svg).into_response())
}

/// An address that other machines reach a server at that listens on `address`.
fn reached(address: SocketAddr) -> Option<SocketAddr> {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => own_address()?,
        ip => ip,
    };
    (!ip.is_loopback()).then(|| SocketAddr::new(ip, address.port()))
}

/// This machine's address on the network that it would leave by. Nothing is sent: the address is one of those for examples.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then_some(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_an_address() {
        assert_eq!(escaped("a-b_c.~9"), "a-b_c.~9");
        assert_eq!(escaped("a b&c=\u{e9}"), "a%20b%26c%3D%C3%A9");
        let url = page_url(([0, 0, 0, 0], 7860).into(), Some("a b"));
        assert_eq!(url, "http://localhost:7860/?token=a%20b");
    }

    #[test]
    fn what_only_this_machine_reaches_is_no_address_for_others() {
        assert_eq!(reached(([127, 0, 0, 1], 80).into()), None);
        let given: SocketAddr = ([192, 168, 1, 5], 80).into();
        assert_eq!(reached(given), Some(given));
    }
}
