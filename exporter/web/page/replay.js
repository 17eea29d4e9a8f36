// A recording that is replayed: says so, and chooses the time that is shown.

import { attribute, byId, text } from "./dom.js";
import * as format from "./format.js";

export class Replay {
  constructor(changed) {
    this.at = null; // the time asked for; null is the end
    this.drawn = null;
    byId("replay-at").addEventListener("input", () => {
      this.at = Number(byId("replay-at").value);
      changed();
    });
  }

  recall(said) {
    this.at = said.has("at") && Number.isFinite(Number(said.get("at"))) ? Number(said.get("at")) : null;
  }

  remember(said) {
    if (this.at !== null) said.set("at", String(this.at));
  }

  query() {
    return this.at === null ? "" : `?at=${this.at}`;
  }

  // Whether a snapshot is of another time than the last one that was seen.
  moved({ recording }) {
    return Boolean(recording) && recording.at !== this.drawn;
  }

  seen({ recording }) {
    this.drawn = recording?.at ?? null;
  }

  draw({ recording, taken_at: takenAt }) {
    byId("replay").hidden = !recording;
    byId("machines").hidden = Boolean(recording);
    if (!recording) return;
    const { file, from, to, at } = recording;
    text(byId("replay-why"), `${format.visible(file)}, from ${format.date(from)} to ${format.date(to)}. This page shows ${format.date(at)}, with the figures of ${format.date(takenAt)}. It does not show the present.`);
    const slider = byId("replay-at");
    for (const [key, value] of [["min", from], ["max", to]]) attribute(slider, key, String(value));
    if (document.activeElement !== slider) slider.value = String(at);
    attribute(slider, "aria-valuetext", format.date(at));
  }
}
