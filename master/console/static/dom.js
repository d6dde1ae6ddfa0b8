// Nodes as plain values, and bringing the document to them with as few changes as possible: focus, selection, scroll places
// and open details stay as they are. Text is only ever set as text: nothing here, or anywhere, parses HTML.

const SVG = "http://www.w3.org/2000/svg";
const KEPT = Symbol("kept");
// Set when a node is made, and the reader's own from then on.
const ONCE = new Set(["open", "value"]);

/** A node. `props`: attributes; `on…` listeners; `style` an object; `key` tells siblings apart. Empty children are left out. */
export function h(tag, props, ...children) {
  return { tag, props: props || {}, children: children.flat(Infinity).filter((one) => one || one === 0) };
}

/** Make the children of `parent` be these. */
export function render(parent, ...children) {
  patchChildren(parent, children.flat(Infinity).filter((one) => one || one === 0), parent.namespaceURI === SVG);
}

function patchChildren(parent, wanted, inSvg) {
  const keyed = new Map();
  for (const node of parent.childNodes) {
    const key = node[KEPT]?.props.key;
    if (key !== undefined) keyed.set(key, node);
  }
  const wantedKeys = new Set(wanted.map((child) => child.props?.key));
  let place = parent.firstChild;
  for (const child of wanted) {
    const key = child.props?.key;
    // What is gone goes first, so that what follows it needn't move, and keeps its focus.
    while (place?.[KEPT]?.props.key !== undefined && !wantedKeys.has(place[KEPT].props.key)) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
    let node = key === undefined ? place : keyed.get(key);
    if (node && (!fits(node, child) || (key === undefined && node[KEPT]?.props.key !== undefined))) node = null;
    if (!node) {
      node = make(child, inSvg);
      parent.insertBefore(node, place);
    } else if (node !== place) {
      parent.insertBefore(node, place);
    } else {
      place = place.nextSibling;
    }
    update(node, child, inSvg);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function fits(node, child) {
  return child.tag === undefined ? node.nodeType === Node.TEXT_NODE : node[KEPT]?.tag === child.tag;
}

function make(child, inSvg) {
  if (child.tag === undefined) return document.createTextNode("");
  const svg = inSvg || child.tag === "svg";
  const node = svg ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node[KEPT] = { tag: child.tag, props: {} };
  return node;
}

function update(node, child, inSvg) {
  if (child.tag === undefined) {
    const text = String(child);
    if (node.data !== text) node.data = text;
    return;
  }
  const before = node[KEPT].props;
  for (const name in before) if (!(name in child.props)) set(node, name, undefined, before[name]);
  for (const name in child.props) set(node, name, child.props[name], before[name]);
  node[KEPT] = child;
  patchChildren(node, child.children, inSvg || child.tag === "svg");
}

function set(node, name, value, before) {
  if (name === "key" || value === before) return;
  if (name.startsWith("on")) {
    if (before) node.removeEventListener(name.slice(2), before);
    if (value) node.addEventListener(name.slice(2), value);
  } else if (name === "style") {
    for (const part in before || {}) if (!(part in (value || {}))) node.style.removeProperty(part);
    for (const part in value || {}) if (value[part] !== before?.[part]) node.style.setProperty(part, value[part]);
  } else if (ONCE.has(name)) {
    if (before === undefined) node[name] = value;
  } else if (value === undefined || value === null || value === false) {
    node.removeAttribute(name);
  } else {
    node.setAttribute(name, value === true ? "" : String(value));
  }
}
