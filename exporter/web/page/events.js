// The events of a recording: marks below the strip of states, and a list.

import { attribute, byId, keyed, s, text } from "./dom.js";
import * as format from "./format.js";
import * as model from "./model.js";
import { Table } from "./table.js";

const SHORTEST = 3; // of 1000
const KINDS = { exporter: "Exporter", controller: "Controller", condition: "Condition", version: "Weight version", incident: "Failed call", departure: "Group left" };
const TONES = { condition: (one) => model.TONES[one.severity] ?? "idle", version: () => "warn", incident: () => "bad", departure: () => "warn" };

const tone = (one) => TONES[one.kind]?.(one) ?? "mark";

// Lasts as long as the recording where it has no end.
const end = (one, shown) => one.until ?? shown.to;

function title(one) {
  if (one.kind === "incident") return `${one.name} failed with ${one.severity}`;
  if (one.kind === "version") return `${one.name}, before ${one.detail.before}`;
  return format.name(one.name);
}

function words(one) {
  const { detail } = one;
  if (one.kind === "condition") return detail.text ?? "";
  if (one.kind === "incident") return detail.reason ?? "";
  const known = Object.entries(detail).filter(([key, value]) => !["identity", "version"].includes(key) && value !== null);
  return known.map(([key, value]) => `${key} ${typeof value === "object" ? Object.entries(value).map((pair) => pair.join(" ")).join(", ") : value}`).join(", ");
}

export class Events {
  constructor() {
    this.table = new Table(byId("events"), {
      caption: "Events",
      scroll: true,
      keyOf: (one) => `${one.kind} ${one.name} ${one.at}`,
      columns: [
        { label: "When", sort: (one) => one.at, cell: (cell, one) => text(cell, format.date(one.at)) },
        { label: "What", tight: true, cell: (cell, one) => text(cell, KINDS[one.kind] ?? one.kind) },
        { label: "Name", cell: (cell, one) => text(cell, format.visible(title(one))) },
        { label: "How long", numeric: true, sort: (one) => this.length(one), cell: (cell, one) => text(cell, this.lasted(one)) },
        { label: "Times", numeric: true, sort: (one) => one.count, cell: (cell, one) => text(cell, format.count(one.count)) },
        { label: "What is known", cell: (cell, one) => text(cell, format.visible(words(one))) },
      ],
    });
  }

  draw({ history, now }) {
    const events = history?.events ?? null;
    byId("marks").toggleAttribute("hidden", events === null);
    byId("events-panel").hidden = events === null;
    if (events === null) return;
    this.shown = model.coverage(history, now);
    this.drawMarks(events.filter((one) => one.kind !== "exporter"));
    this.table.draw([...events].reverse(), "No event in this time range.");
    text(byId("events-note"), history.events_left_out ? `the newest; ${format.count(history.events_left_out)} older ones are left out: choose a shorter time range` : "newest first");
  }

  drawMarks(events) {
    const { from, to } = this.shown;
    const x = (time) => Math.min(Math.max((1000 * (time - from)) / (to - from), 0), 1000 - SHORTEST);
    keyed(
      byId("marks"),
      events,
      (one) => `${one.kind} ${one.name} ${one.at}`,
      () => s("rect", { y: 1, height: 8 }, s("title")),
      (rect, one) => {
        const lasts = one.kind === "condition" || one.kind === "incident"; // a controller is marked where it began
        attribute(rect, "data-tone", tone(one));
        attribute(rect, "x", x(one.at).toFixed(2));
        attribute(rect, "width", Math.max(lasts ? x(end(one, this.shown)) - x(one.at) : 0, SHORTEST).toFixed(2));
        text(rect.firstElementChild, `${KINDS[one.kind] ?? one.kind}: ${format.visible(title(one))}, ${format.date(one.at)}, ${this.lasted(one)}`);
      },
    );
    const counts = Object.keys(KINDS).map((kind) => [KINDS[kind], events.filter((one) => one.kind === kind).length]).filter(([, count]) => count);
    attribute(byId("marks"), "aria-label", `Events over time: ${counts.map(([kind, count]) => `${kind} ${count}`).join(", ") || "none"}`);
  }

  length(one) {
    return end(one, this.shown) - one.at;
  }

  lasted(one) {
    if (one.until === one.at) return "";
    const length = format.span(Math.round(this.length(one)));
    return one.until === null ? `${length}, lasts` : one.cut ? `${length}, then not recorded` : length;
  }
}
