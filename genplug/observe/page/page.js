// Replaces the sections of the page that change. The server escapes nothing here: a text becomes a text node, and only
// the elements and attributes below are created.
"use strict";
(() => {
  const SVG = new Set(["svg", "rect"]);
  const TAGS = new Set([
    ...SVG, "a", "caption", "dd", "div", "dl", "dt", "h1", "h2", "h3", "li", "p", "pre", "section", "span", "table",
    "tbody", "td", "th", "thead", "time", "tr", "ul",
  ]);
  const ATTRIBUTES = new Set([
    "aria-hidden", "aria-label", "class", "data-label", "datetime", "height", "href", "id", "preserveAspectRatio",
    "role", "scope", "tabindex", "viewBox", "width", "x", "y",
  ]);
  const SILENCE_MS = 45000;
  const RELOAD_MS = 15000;
  const main = document.querySelector("main");
  const connection = document.getElementById("connection");
  const news = document.getElementById("news");
  let source = null;
  let silence = 0;
  let reload = 0;

  const say = (element, text) => {
    if (element.textContent !== text) element.textContent = text;
  };

  const create = (tag) => {
    if (!TAGS.has(tag)) throw new Error(`unexpected element ${tag}`);
    return SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  };

  const isAllowed = (name, value) => ATTRIBUTES.has(name) && (name !== "href" || value.startsWith("#"));

  const patch = (element, [, attributes, children]) => {
    for (const { name } of [...element.attributes]) if (!(name in attributes)) element.removeAttribute(name);
    for (const [name, value] of Object.entries(attributes)) {
      if (isAllowed(name, value) && element.getAttribute(name) !== value) element.setAttribute(name, value);
    }
    patchChildren(element, children);
  };

  // An element with an ID keeps its node, and with it the focus, when others are inserted before it.
  const find = (parent, tree, position) => {
    const node = parent.childNodes[position];
    if (typeof tree === "string") return node instanceof Text ? node : null;
    const [tag, { id }] = tree;
    const found = id ? [...parent.children].find((child) => child.id === id) : node;
    return found instanceof Element && found.localName === tag && (found.id || undefined) === id ? found : null;
  };

  const patchChildren = (parent, trees) => {
    trees.forEach((tree, position) => {
      const found = find(parent, tree, position);
      const node = found ?? (typeof tree === "string" ? new Text() : create(tree[0]));
      if (typeof tree === "string") {
        if (node.data !== tree) node.data = tree;
      } else {
        patch(node, tree);
      }
      if (parent.childNodes[position] !== node) parent.insertBefore(node, parent.childNodes[position] ?? null);
    });
    while (parent.childNodes.length > trees.length) parent.lastChild.remove();
  };

  const update = ({ page, title, order, sections, news: text }) => {
    // The agent was replaced by another version.
    if (page !== document.documentElement.dataset.page) location.reload();
    document.title = title;
    order.forEach((id, position) => {
      const section = document.getElementById(id) ?? create("section");
      if (id in sections) patch(section, sections[id]);
      if (main.children[position] !== section) main.insertBefore(section, main.children[position] ?? null);
    });
    while (main.children.length > order.length) main.lastElementChild.remove();
    if (text) say(news, `${new Date().toLocaleTimeString()}: ${text}`);
  };

  const disconnect = () => {
    clearTimeout(silence);
    clearTimeout(reload);
    source?.close();
    source = null;
  };

  const hear = () => {
    say(connection, "Live: the page follows the agent.");
    clearTimeout(silence);
    silence = setTimeout(() => { disconnect(); connect(); }, SILENCE_MS);
  };

  const connect = () => {
    if (source !== null || document.hidden) return;
    source = new EventSource("events");
    source.addEventListener("update", (event) => { update(JSON.parse(event.data)); hear(); });
    source.addEventListener("alive", hear);
    source.addEventListener("error", () => {
      if (source?.readyState !== EventSource.CLOSED) {
        say(connection, "Not connected: the page is out of date. It connects again when the agent responds.");
        return;
      }
      // The agent refused: it serves few live pages at once.
      disconnect();
      say(connection, "Not live: the agent has too many live pages. The page loads again every 15 seconds.");
      reload = setTimeout(() => location.reload(), RELOAD_MS);
    });
  };

  // A page that is not visible frees its connection.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  addEventListener("pagehide", disconnect);
  addEventListener("pageshow", connect);
  connect();
})();
