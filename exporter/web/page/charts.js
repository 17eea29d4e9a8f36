// Charts over time as SVG. The shapes stretch with the page, so all text is HTML beside them.

import { attribute, h, keyed, s, text } from "./dom.js";
import { ago, date, decimal } from "./format.js";

const WIDTH = 1000;
const HEIGHT = 100;

// The next larger of 1, 2, 5 times a power of ten.
export function niceMax(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

export class TimeChart {
  // series: [{key, label, tone}]. Stacked: areas on top of each other; otherwise one line per series.
  constructor(parent, { title, series, stacked = false, format }) {
    this.series = series;
    this.stacked = stacked;
    this.format = format;
    this.title = title;
    this.cursor = null;
    this.paths = series.map((one) => s("path", { class: `${stacked ? "area" : "line"} tone-${one.tone}` }));
    this.rule = s("line", { class: "cursor", y1: 0, y2: HEIGHT, visibility: "hidden" });
    this.svg = s(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", tabindex: "0", "aria-label": title },
      s("line", { class: "rule", x1: 0, x2: WIDTH, y1: HEIGHT / 2, y2: HEIGHT / 2 }),
      ...this.paths,
      this.rule,
    );
    this.top = h("span", { class: "y-top" });
    this.from = h("span");
    this.until = h("span", {}, "now");
    this.legend = h("ul", { class: "legend" }, ...series.map((one) => this.legendItem(one)));
    this.when = h("span", { class: "when" });
    this.empty = h("p", { class: "chart-empty", hidden: true });
    parent.append(
      h(
        "figure",
        { class: "chart" },
        h("div", { class: "plot" }, this.svg, this.top, this.empty),
        h("div", { class: "axis", "aria-hidden": "true" }, this.from, this.when, this.until),
        h("figcaption", {}, this.legend),
      ),
    );
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
  }

  legendItem(one) {
    one.value = h("b");
    return h("li", {}, h("i", { class: `swatch tone-${one.tone}`, "aria-hidden": "true" }), `${one.label} `, one.value);
  }

  // at: sample times; shown: the time shown, {from, to, live}; values: {key: array with null for unknown}; top: a common scale.
  draw({ at, shown, values, interval, top, empty }) {
    this.data = { at, shown, values };
    const drawn = at.map((_, index) => this.known(index));
    const nothing = !drawn.includes(true);
    this.empty.hidden = !nothing;
    text(this.empty, empty ?? "No data in this time range");
    const highest = Math.max(0, ...at.map((_, index) => this.height(index)));
    this.max = niceMax(top ?? highest);
    text(this.top, nothing ? "" : decimal(this.max));
    const { from, to, live } = shown;
    text(this.from, live ? ago(to - from) : date(from));
    text(this.until, live ? "now" : date(to));
    const x = at.map((time) => (WIDTH * (time - from)) / (to - from));
    const runs = this.runs(drawn, interval);
    let floor = at.map(() => 0);
    this.series.forEach((one, position) => {
      const ceiling = at.map((_, index) => floor[index] + (values[one.key][index] ?? 0));
      const y = (value) => HEIGHT * (1 - value / this.max);
      const path = this.stacked
        ? runs.map((run) => area(run, x, floor.map(y), ceiling.map(y)))
        : this.runs(values[one.key].map((value) => value !== null), interval).map((run) => line(run, x, values[one.key], y));
      attribute(this.paths[position], "d", path.join(""));
      if (this.stacked) floor = ceiling;
    });
    this.x = x;
    this.show();
  }

  known(index) {
    return this.series.some((one) => this.data.values[one.key][index] !== null);
  }

  height(index) {
    const here = this.series.map((one) => this.data.values[one.key][index] ?? 0);
    return this.stacked ? here.reduce((total, value) => total + value, 0) : Math.max(...here);
  }

  // Runs of neighbouring known samples; between two runs the drawing has a gap.
  runs(known, interval) {
    const runs = [];
    known.forEach((yes, index) => {
      const joined = index && known[index - 1] && this.data.at[index] - this.data.at[index - 1] < 2.5 * interval;
      if (yes && joined) runs.at(-1).push(index);
      else if (yes) runs.push([index]);
    });
    return runs;
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const where = ((event.clientX - box.left) / box.width) * WIDTH;
    let nearest = null;
    this.x?.forEach((x, index) => {
      if (nearest === null || Math.abs(x - where) < Math.abs(this.x[nearest] - where)) nearest = index;
    });
    this.move(nearest);
  }

  key(event) {
    const last = (this.x?.length ?? 0) - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -15, PageDown: 15, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") this.move(null);
    else if (step !== undefined && last >= 0) this.move(Math.min(Math.max((this.cursor ?? last) + step, 0), last));
    else return;
    event.preventDefault();
  }

  move(index) {
    this.cursor = index;
    if (this.data) this.show();
  }

  // The legend shows the values under the cursor, or the latest ones.
  show() {
    const { at, shown, values } = this.data;
    const moment = (index) => (shown.live ? ago(shown.to - at[index]) : date(at[index]));
    if (this.cursor !== null && this.cursor >= at.length) this.cursor = null;
    const index = this.cursor ?? at.length - 1;
    for (const one of this.series) text(one.value, this.format(values[one.key][index] ?? null));
    text(this.when, this.cursor === null ? "" : moment(index));
    attribute(this.rule, "visibility", this.cursor === null ? "hidden" : "visible");
    if (this.cursor !== null) for (const end of ["x1", "x2"]) attribute(this.rule, end, String(this.x[index]));
    const said = this.series.map((one) => `${one.label} ${this.format(values[one.key][index] ?? null)}`).join(", ");
    const when = this.cursor === null ? (shown.live ? "now" : "at the end") : moment(index);
    attribute(this.svg, "aria-label", `${this.title}: ${when} ${said}; scale up to ${this.format(this.max)}`);
  }
}

const round = (value) => Math.round(value * 100) / 100;

function line(run, x, values, y) {
  const points = run.map((index) => `${round(x[index])} ${round(y(values[index]))}`);
  // A single sample has no length; round line caps make it a dot.
  return `M${points.join("L")}${points.length === 1 ? "h0.01" : ""}`;
}

function area(run, x, floor, ceiling) {
  const end = run.length === 1 ? x[run[0]] + 3 : null;
  const along = run.map((index) => `${round(x[index])} ${round(ceiling[index])}`);
  const back = [...run].reverse().map((index) => `${round(x[index])} ${round(floor[index])}`);
  if (end !== null) return `M${along[0]}H${round(end)}V${round(floor[run[0]])}H${round(x[run[0]])}Z`;
  return `M${along.join("L")}L${back.join("L")}Z`;
}

// A table of labels, bars and counts. rows: [{label, value, tone, title}]
export class Bars {
  constructor(parent, { caption, label, value }) {
    this.body = h("tbody");
    const head = h("tr", {}, h("th", { scope: "col" }, label), h("th", { scope: "col", colspan: "2" }, value));
    const table = h("table", { class: "bars" }, h("caption", { class: "visually-hidden" }, caption));
    table.append(h("thead", { class: "visually-hidden" }, head), this.body);
    this.region = h("div", { class: "bars-region", role: "group", "aria-label": `${caption}, scrollable`, tabindex: "0" }, table);
    parent.append(this.region);
  }

  draw(rows) {
    const most = Math.max(1, ...rows.map((row) => row.value));
    keyed(
      this.body,
      rows,
      (row) => row.label,
      (row) => h("tr", {}, h("th", { scope: "row" }, row.label), h("td", { class: "track" }, h("i", {})), h("td", { class: "n" })),
      (element, row) => {
        const bar = element.children[1].firstElementChild;
        attribute(bar, "class", `tone-${row.tone}`);
        bar.style.width = `${(100 * row.value) / most}%`;
        text(element.lastElementChild, row.text);
        attribute(element, "data-zero", row.value === 0 ? "" : null);
      },
    );
  }
}
