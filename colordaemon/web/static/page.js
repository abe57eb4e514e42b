// Keeps the page current. Without it, everything works at the next click.
"use strict";

// Change an element so that it holds what `fresh` holds, and leave alone what is the same already:
// so the focus, a slider and what a screen reader reads stay where they are.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName || old.nodeType !== fresh.nodeType) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "style") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const was = [...old.childNodes], will = [...fresh.childNodes];
  will.forEach((child, n) => (n < was.length ? morph(was[n], child) : old.append(child)));
  was.slice(will.length).forEach((child) => child.remove());
}

function parsed(html) {
  return new DOMParser().parseFromString(html, "text/html");
}

function put(id, html) {
  const old = document.getElementById(id);
  if (!old) return;
  const fresh = old.cloneNode(false);
  fresh.replaceChildren(...parsed(html).body.childNodes);
  morph(old, fresh);
}

function take(page) {
  for (const id of ["list", "bar", "now"]) {
    const old = document.getElementById(id), fresh = page.getElementById(id);
    if (old && fresh) morph(old, fresh);
  }
}

// News from the daemon; the list is asked for when a job has changed its state, not too often.
let revision = null, due = null;

async function refresh() {
  due = null;
  const answer = await fetch(location.href);
  if (answer.ok) take(parsed(await answer.text()));
}

const news = new EventSource("/events");
news.onmessage = ({ data }) => {
  const said = JSON.parse(data);
  for (const [id, html] of Object.entries(said.parts)) put(id, html);
  if (revision !== null && said.revision !== revision) due ??= setTimeout(refresh, 2000);
  revision = said.revision;
};
news.onerror = () => {
  const state = document.querySelector("#bar .state");
  if (state) Object.assign(state, { className: "state bad", textContent: "No connection" });
};
addEventListener("pagehide", () => news.close());

// Commands, without leaving the page
document.addEventListener("submit", async (event) => {
  if (event.target.method !== "post") return;
  event.preventDefault();
  const button = event.submitter, form = new FormData(event.target, button);
  if (!form.has("back")) form.set("back", location.pathname + location.search);
  const answer = await fetch(button.formAction, { method: "POST", body: new URLSearchParams(form) });
  const page = parsed(await answer.text());
  take(page);
  const said = page.getElementById("said");
  document.getElementById("said").textContent = said ? said.textContent : "It did not work.";
});

// The slider between before and after
document.addEventListener("input", ({ target }) => {
  if (target.type === "range") target.parentElement.style.setProperty("--cut", `${target.value}%`);
});
