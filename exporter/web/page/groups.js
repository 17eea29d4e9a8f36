// The groups of the selected partition: oldest, stalest, stuck, those that a condition is about, and those that left.

import { attribute, byId, h, keyed, text } from "./dom.js";
import * as format from "./format.js";
import * as model from "./model.js";
import { Table } from "./table.js";

const LIMIT = 50;
const AGAIN_MS = 10_000; // after a question that was not answered
const LONGEST = 512; // a longer id was cut by the exporter

// Each view's name in the address, its title, and what it asks for.
const VIEWS = {
  oldest: { title: "Oldest", ask: { sort: "age" }, order: "the oldest first" },
  stalest: { title: "Stalest", ask: { sort: "lag" }, order: "the most versions behind first" },
  stuck: { title: "Stuck", ask: { condition: "stuck" }, order: "no process will finish or remove them" },
  departed: { title: "Left unusually", ask: { departed: "true" }, order: "the newest departures first" },
};

const WHY = {
  lost: "lost with its controller, or by a checkpoint",
  failed: "had failed",
  unfinished: "was never ready",
  untaken: "was ready and never seen as taken",
  stale: "too many versions behind",
  old: "stayed far longer than usual",
};

const STATE_TONES = { ready: "ok", taken: "ok", incomplete: "warn", uncommitted: "idle", failed: "bad" };

export const areShown = () => document.body.dataset.groups !== "off";

// A view in the address: one of the above, or a condition. Anything else is none.
export const isView = (name) => name in VIEWS || /^[A-Z][A-Za-z]{1,60}$/.test(name);

export class Groups {
  // ask(path): fetches JSON. choose({groups, search}): changes the choices in the address.
  constructor({ ask, choose }) {
    this.ask = ask;
    this.choose = choose;
    this.answer = null;
    this.problem = "";
    this.asked = ""; // what the answer is to: the question, and which listings it is about
    this.asking = false;
    this.failedAt = -Infinity; // performance.now()
    byId("groups-panel").hidden = !areShown();
    byId("groups-view").addEventListener("change", (event) => this.choose({ groups: event.target.value }));
    byId("groups-search").addEventListener("input", (event) => {
      clearTimeout(this.typing);
      this.typing = setTimeout(() => this.choose({ groups: this.chosen.groups || "oldest", search: event.target.value }), 300);
    });
    byId("groups-left").addEventListener("click", () => this.choose({ groups: "departed" }));
    this.table = new Table(byId("groups"), { caption: "Groups", scroll: true, keyOf: (one) => JSON.stringify([one.partition, one.group_id, one.departed_at]), columns: this.columns() });
  }

  draw(view, chosen) {
    if (chosen.groups !== this.chosen?.groups || chosen.search !== this.chosen?.search) this.failedAt = -Infinity;
    this.now = view.now;
    this.view = view;
    this.chosen = { groups: chosen.groups, search: chosen.search };
    if (!areShown()) return;
    this.drawChoices(view, chosen);
    for (const id of ["groups", "groups-state"]) byId(id).hidden = !chosen.groups;
    if (!chosen.groups) {
      text(byId("groups-note"), "which one, in which state, since when: select a view, or search by id or key");
      return;
    }
    const query = this.query(chosen, view.scope);
    // Groups change with a listing only. What is no longer current is asked once more, for what is known of it.
    const listings = view.snapshot.statuses.map((one) => one.listed_at).join();
    const key = JSON.stringify([query, view.live.up, view.snapshot.generation, view.snapshot.started_at, listings]);
    const due = key !== this.asked && performance.now() - this.failedAt > AGAIN_MS;
    if (view.connected && due && !this.asking) this.fetch(query, key);
    this.drawAnswer(view, chosen, query);
  }

  query({ groups, search }, scope) {
    const said = new URLSearchParams({ ...(VIEWS[groups]?.ask ?? { condition: groups }), limit: LIMIT });
    if (scope !== null) said.set("partition", scope);
    if (search) said.set("search", search);
    return said.toString();
  }

  async fetch(query, key) {
    this.asking = true;
    try {
      this.answer = { query, ...(await this.ask(`api/v1/groups?${query}`)).body };
      this.asked = key;
      this.problem = "";
    } catch (error) {
      this.problem = error.message;
      this.failedAt = performance.now();
    } finally {
      this.asking = false;
      this.draw(this.view, this.chosen);
    }
  }

  drawChoices({ held, scope }, { groups, search }) {
    const about = held.filter((one) => one.about_groups).map((one) => one.name);
    const names = ["", ...Object.keys(VIEWS), ...about, ...(groups && !(groups in VIEWS) && !about.includes(groups) ? [groups] : [])];
    keyed(
      byId("groups-view"),
      names,
      (name) => name,
      (name) => h("option", { value: name }, VIEWS[name]?.title ?? (name || "None")),
      (option, name) => { if (option.selected !== (name === groups)) option.selected = name === groups; },
    );
    const field = byId("groups-search");
    if (document.activeElement !== field && field.value !== search) field.value = search;
    text(byId("groups-title"), scope === null ? "Groups" : `Groups of ${format.name(scope)}`);
    const link = byId("groups-link");
    link.hidden = !groups;
    attribute(link, "href", this.address({ groups, search }, scope));
  }

  // The address that shows a view to somebody else.
  address({ groups, search }, scope) {
    const said = new URLSearchParams({ groups });
    if (scope !== null) said.set("partition", scope);
    if (search) said.set("search", search);
    return `?${said}#groups-panel`;
  }

  drawAnswer({ live, now, snapshot }, { groups, search }, query) {
    const answer = this.answer?.query === query ? this.answer : null; // never the groups of another question
    const found = answer?.groups ?? [];
    const old = !live.up || (answer !== null && answer.partitions.some((one) => !one.current));
    this.table.draw(found, "");
    attribute(byId("groups"), "data-old", old ? "" : null);
    byId("groups").hidden = !found.length;
    byId("groups-left").hidden = !(answer && !found.length && search && groups !== "departed");
    const said = byId("groups-state-text");
    if (answer === null) text(said, this.problem ? `The groups cannot be read: ${this.problem}.` : "Loading…");
    else text(said, found.length ? "" : nothing(answer, groups, search));
    byId("groups-state").hidden = !said.textContent;
    const times = (answer?.partitions ?? []).map((one) => one.listed_at).filter((at) => at !== null);
    const listed = times.length ? Math.min(...times) : null;
    const notes = [];
    if (found.length) {
      const order = VIEWS[groups]?.order ?? model.conditionText(snapshot, groups);
      notes.push(answer.matched > found.length ? `${format.count(found.length)} of ${format.count(answer.matched)}` : format.count(found.length), format.visible(order));
    }
    if (answer && groups !== "departed") {
      const hidden = answer.partitions.find((one) => one.reason !== null);
      if (hidden) notes.push(`${format.name(hidden.label)} cannot be read now: ${model.UNREADABLE[hidden.reason]}`);
      if (listed !== null) notes.push(old ? `not current: as listed at ${format.at(listed, now)}, ${format.ago(now - listed)}` : `listed ${format.ago(now - listed)}`);
    }
    text(byId("groups-note"), notes.filter(Boolean).join(" · "));
  }

  columns() {
    const figure = (label, value, show = format.count) => ({ label, numeric: true, sort: value, cell: (cell, one) => text(cell, show(value(one))) });
    return [
      { label: "Group", sort: (one) => one.group_id, cell: (cell, one) => this.drawName(cell, one) },
      { label: "Partition", tight: true, sort: (one) => one.partition, cell: (cell, one) => text(cell, format.name(one.partition)) },
      { label: "State", cell: (cell, one) => drawState(cell, one) },
      { label: "Age", numeric: true, sort: (one) => this.age(one), cell: (cell, one) => this.drawAge(cell, one) },
      { label: "In this state since", tight: true, sort: (one) => one.state_since, cell: (cell, one) => this.drawSince(cell, one) },
      figure("Version", (one) => one.version),
      figure("Lag", (one) => one.lag),
      { label: "Keys", numeric: true, sort: (one) => one.keys, cell: (cell, one) => text(cell, keysOf(one)) },
      figure("Sessions", (one) => one.sessions, (sessions) => (sessions === null ? "" : format.count(sessions))), // only verl has them
      figure("Size", (one) => one.size_bytes, format.bytes),
      { label: "First keys", cell: (cell, one) => text(cell, one.first_keys.map(format.name).join(" ") + (one.keys > one.first_keys.length ? " …" : "")) },
      { label: "Noted", cell: (cell, one) => text(cell, noted(one, this.now)) },
      { label: "Trace", cell: (cell, one) => this.drawTrace(cell, one) },
    ];
  }

  drawName(cell, one) {
    const search = one.group_id.length < LONGEST ? one.group_id : one.group_id.slice(0, -1);
    const groups = one.departed_at === null ? "oldest" : "departed";
    if (!cell.firstElementChild) {
      const link = h("a", { class: "name", title: "Only this group; the link can be sent" }, h("bdi", {}, format.name(one.group_id)));
      link.addEventListener("click", (event) => {
        if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return; // a new tab
        event.preventDefault();
        this.choose({ groups, search, scope: one.label });
      });
      cell.append(link);
    }
    attribute(cell.firstElementChild, "href", this.address({ groups, search }, one.label));
  }

  // A group's age goes on while its listing is current.
  age(one) {
    const created = one.created_at ?? one.first_seen;
    const current = one.departed_at === null && this.view.live.up;
    return current ? Math.max(Math.round(this.now - created), 0) : one.age_seconds;
  }

  drawAge(cell, one) {
    text(cell, `${one.age_basis === "first_seen" ? "≥ " : ""}${format.span(Math.round(this.age(one)))}`);
    attribute(cell, "title", `${one.age_basis === "first_seen" ? "First seen" : "Created"} ${format.date(one.created_at ?? one.first_seen)}`);
  }

  drawSince(cell, one) {
    const seenSo = one.state_since === one.first_seen; // it may have been in this state before
    text(cell, `${seenSo ? "≤ " : ""}${format.at(one.state_since, this.now)}`);
    attribute(cell, "title", `First seen ${format.date(one.first_seen)}`);
  }

  drawTrace(cell, one) {
    const template = this.answer?.trace_url;
    if (!one.trace_id || !template) {
      text(cell, one.trace_id ?? "");
      return;
    }
    if (!cell.firstElementChild) cell.replaceChildren(h("a", { target: "_blank", rel: "noopener noreferrer" }));
    attribute(cell.firstElementChild, "href", template.replaceAll("{trace_id}", one.trace_id));
    text(cell.firstElementChild, one.trace_id);
  }
}

function drawState(cell, one) {
  if (!cell.firstElementChild) cell.append(h("span", { class: "badge" }));
  text(cell.firstElementChild, one.state);
  attribute(cell.firstElementChild, "data-tone", one.orphaned ? "warn" : STATE_TONES[one.state]);
}

const keysOf = (one) => (one.expected === null || one.sessions !== null ? format.count(one.keys) : `${format.count(one.keys)} of ${format.count(one.expected)}`);

function noted(one, now) {
  const said = [];
  if (one.departed_at !== null) said.push(`left at ${format.at(one.departed_at, now)}`, ...one.why.map((why) => WHY[why] ?? format.visible(why)));
  if (one.orphaned) said.push("orphaned");
  if (one.malformed) said.push(`${format.count(one.malformed)} malformed rows`);
  return [...said, ...one.conditions].join(", ");
}

function nothing(answer, groups, search) {
  if (groups === "departed") return search ? "No group that left unusually matches." : "No group has left unusually, as far as is known.";
  if (!answer.known) return "The groups are not known: no partition was listed.";
  if (!answer.partitions.length) return "This partition no longer exists. Its groups left with it.";
  if (answer.partitions.every((one) => one.groups === null)) return "The groups are not known: the partition was never listed.";
  if (search) return "No group in the queue matches. It may have left.";
  return groups in VIEWS && groups !== "stuck" ? "There are no groups." : "There are no such groups.";
}
