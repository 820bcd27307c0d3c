"""What can be found out of a page without a person: names, structure, contrast, motion and width."""

from __future__ import annotations

from browser import Page

INTERACTIVE = {"button", "link", "textbox", "searchbox", "checkbox", "combobox", "dialog", "progressbar", "table", "form", "search", "region"}


CONTRAST = """
const parse = (text) => { const all = text.match(/[\\d.]+/g).map(Number); return { rgb: all.slice(0, 3), alpha: all[3] ?? 1 }; };
const light = (rgb) => {
  const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const { rgb, alpha } = parse(getComputedStyle(at).backgroundColor);
    if (alpha === 1) return rgb;
    if (alpha > 0) throw new Error("a ground that shines through");
  }
};
const poor = [];
let count = 0;
for (const element of document.body.querySelectorAll("*")) {
  const words = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!words || !element.checkVisibility() || element.closest(".unseen, option, noscript")) continue;
  const style = getComputedStyle(element);
  const [one, two] = [light(parse(style.color).rgb), light(ground(element))];
  const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
  count += 1;
  if (ratio < (large ? 3 : 4.5)) poor.push(`${element.outerHTML.slice(0, 100)} ${ratio.toFixed(2)}`);
}
return { poor, count };
"""


STRUCTURE = """
const wrong = [];
const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`twice: ${id}`);
for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
  for (const element of document.querySelectorAll(`[${name}]`)) {
    if (!element.checkVisibility()) continue;
    for (const id of element.getAttribute(name).split(" ")) if (!ids.includes(id)) wrong.push(`${name} names nothing: ${id}`);
  }
}
let last = 0;
for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
  if (!heading.checkVisibility() || heading.closest("dialog")) continue;
  const level = Number(heading.tagName[1]);
  if (level > last + 1) wrong.push(`a level is left out before ${heading.textContent}`);
  last = level;
}
for (const table of document.querySelectorAll("table")) {
  if (table.checkVisibility() && table.querySelectorAll("th:not([scope])").length + Number(!table.tHead)) wrong.push("a table without heads");
}
for (const control of document.querySelectorAll("button, input:not([type=checkbox]), select")) {
  if (control.checkVisibility() && control.getBoundingClientRect().height < 24) wrong.push(`small: ${control.outerHTML}`);
}
return wrong;
"""


def check_for_everybody(page: Page, what: str) -> None:
    """What screen readers are told, contrast in both schemes, and that nothing is wider than a narrow screen."""
    assert page.run("return document.documentElement.lang") == "en"
    assert page.driver.title.endswith("nomad-build")
    assert page.run(STRUCTURE) == [], what
    nodes = [node for node in page.cdp("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
    roles = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    nameless = [role for role, name in roles if role in INTERACTIVE - {"table", "form"} and not name.strip()]
    assert not nameless, f"{what}: without a name: {nameless}"
    kinds = [role for role, _ in roles]
    if not page.shown("dialog"):
        for landmark in ("banner", "main", "contentinfo"):
            assert kinds.count(landmark) == 1, f"{what}: {landmark}"
        assert sum(element.is_displayed() for element in page.all("h1")) == 1, what
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
        page.cdp("Emulation.setEmulatedMedia", features=features)
        contrast = page.run(CONTRAST)
        assert contrast["count"] > 5 and not contrast["poor"], f"{what}, {scheme}: {contrast}"
        assert page.run("return document.getAnimations().length") == 0, f"{what}: motion"
    page.cdp("Emulation.setEmulatedMedia", features=[])
    page.cdp("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=1, mobile=False)
    width = page.run("return document.documentElement.scrollWidth")
    page.cdp("Emulation.clearDeviceMetricsOverride")
    assert width <= 320, f"{what}: {width} wide"
