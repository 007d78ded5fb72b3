// A phone on the same network: the page's address as a QR code.

import { button, html, make } from "./dom.js";
import { withToken } from "./live.js";
import { sentence } from "./png.js";

export function startJoin() {
  const place = html("join");
  button("join-show").addEventListener("click", async () => {
    place.hidden = false;
    place.replaceChildren(...(await code()));
  });
}

async function code() {
  try {
    const answer = await fetch(withToken("studio/join"));
    const text = await answer.text();
    if (!answer.ok) return [make("p", { className: "muted" }, sentence(text))];
    const src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    return [make("img", { src, alt: "QR code of this page's address", width: 240, height: 240 }), make("p", { className: "muted small" }, "Whoever scans this may paint here.")];
  } catch {
    return [make("p", { className: "muted" }, "There is no connection to the server.")];
  }
}
