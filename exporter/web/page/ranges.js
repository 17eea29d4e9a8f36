// Which time is shown: the last minutes from memory, or any time of the recording.

import { byId, text } from "./dom.js";
import * as format from "./format.js";

const LENGTHS = { hour: 3600, "6h": 21600, day: 86400 };
const FRESH_S = 10;

const radios = () => [...document.querySelectorAll("input[name=window]")];

// The recording behind a snapshot: {from, to, replay}, null without one.
export function recordingOf(snapshot) {
  if (snapshot.recording) return { ...snapshot.recording, replay: true };
  const since = snapshot.recorder?.since ?? null;
  return since === null ? null : { from: since, to: snapshot.taken_at, at: snapshot.taken_at, replay: false };
}

export class Ranges {
  constructor(changed) {
    this.name = "recent";
    this.custom = null; // {from, to}
    this.history = null;
    this.problem = "";
    this.asked = "";
    this.askedAt = -Infinity;
    for (const radio of radios()) {
      radio.addEventListener("change", () => {
        this.name = radio.value;
        changed();
      });
    }
    for (const id of ["custom-from", "custom-to"]) {
      byId(id).addEventListener("change", () => {
        const [from, to] = ["custom-from", "custom-to"].map((one) => Date.parse(byId(one).value) / 1000);
        if (!(from < to)) return;
        this.custom = { from, to };
        changed();
      });
    }
  }

  recall(said) {
    const [from, to] = [Number(said.get("from")), Number(said.get("to"))];
    if (said.has("from") && from < to) this.custom = { from, to };
    const wanted = this.custom ? "custom" : said.get("range");
    const radio = radios().find((one) => one.value === wanted) ?? radios()[0];
    radio.checked = true; // a browser may remember what was checked before a reload
    this.name = radio.value;
  }

  remember(said) {
    if (this.name === "custom" && this.custom) {
      said.set("from", String(this.custom.from));
      said.set("to", String(this.custom.to));
    } else if (this.name !== "recent") said.set("range", this.name);
  }

  // The time to ask the recording for: {from, to, live}, null where the memory has it.
  wanted(snapshot) {
    const recording = recordingOf(snapshot);
    if (!recording || this.name === "recent") return null;
    const live = !recording.replay;
    if (this.name === "run") return { from: recording.from, to: recording.to, live };
    if (this.name in LENGTHS) return { from: recording.at - LENGTHS[this.name], to: recording.at, live };
    this.custom ??= { from: Math.max(recording.from, recording.to - 3600), to: recording.to };
    return { ...this.custom, live: false };
  }

  // Reads the recording where that is wanted and due. One that cannot be read leaves the rest of the page as it is.
  async read(snapshot, ask, clock) {
    const wanted = this.wanted(snapshot);
    if (!wanted) {
      this.history = null;
      this.asked = "";
      return;
    }
    const key = wanted.live ? this.name : JSON.stringify(wanted);
    const every = Math.max(FRESH_S, this.history?.interval ?? 0) * 0.9;
    if (key === this.asked && clock() - this.askedAt < every) return;
    try {
      const { body } = await ask(`api/v1/history?from=${wanted.from}&to=${wanted.to}`);
      this.history = { ...body, live: wanted.live };
      this.problem = "";
    } catch (error) {
      this.history = null;
      this.problem = `The recording cannot be read: ${error.message}`;
    }
    this.asked = key;
    this.askedAt = clock();
  }

  // The history to draw, from the recording or from memory. Null while it is not there.
  drawn(snapshot, memory) {
    return this.wanted(snapshot) ? this.history : (memory[this.name] ?? memory.recent);
  }

  draw(snapshot) {
    const recording = recordingOf(snapshot);
    for (const label of document.querySelectorAll("[data-recorded]")) label.hidden = !recording;
    byId("custom").hidden = !recording || this.name !== "custom";
    if (this.custom && !byId("custom").hidden && !byId("custom").contains(document.activeElement)) {
      byId("custom-from").value = local(this.custom.from);
      byId("custom-to").value = local(this.custom.to);
    }
    const failing = snapshot.recorder?.up === false ? `Not recorded: ${format.visible(snapshot.recorder.detail)}` : "";
    byId("recorder-note").hidden = !this.problem && !failing;
    text(byId("recorder-note"), this.problem || failing);
  }
}

// A time as a field for date and time has it, in the reader's zone.
function local(epoch) {
  const moment = new Date(epoch * 1000);
  return new Date(moment.getTime() - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}
