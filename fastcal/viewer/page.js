// The page of the viewer: layers of a case in three linked planes, drawn by NiiVue.
"use strict";
(() => {
  const { Niivue, NVImage } = globalThis.niivue;
  const byId = (id) => document.getElementById(id);
  const embedded = byId("embedded") && JSON.parse(byId("embedded").textContent);
  const INVALID = -1; // as fastcal.viewer.payload
  const OPACITY = { image: 1, labels: 0.45, error: 0.9, map: 0.7 };

  const nv = new Niivue({
    isRadiologicalConvention: true,
    isNearestInterpolation: true, // voxels as they are: smoothing would invent values
    isResizeCanvas: true,
    multiplanarShowRender: 0,
    multiplanarPadPixels: 4,
    isOrientationTextVisible: true,
    crosshairColor: [0.34, 0.71, 0.91, 0.8],
    showAllOrientationMarkers: true,
    crosshairWidth: 0.2,
    crosshairWidthUnit: "percent",
    backColor: [0.05, 0.06, 0.07, 1],
    fontColor: [1, 0.82, 0.25, 1],
    dragAndDropEnabled: false,
    logLevel: "error",
  });

  const state = {
    rows: [],
    name: null,
    data: null,
    images: new Map(), // NVImage of each layer that was loaded
    chosen: { image: null, map: null }, // keys, which stay from case to case
    shown: { prediction: true, reference: false, error: true, map: true },
    opacity: {},
    threshold: {},
    hidden: false,
    visit: { errors: -1, uncertain: -1 },
    turn: 0,
    plane: 2, // the axis across it: 2 axial, 1 coronal, 0 sagittal
  };
  globalThis.fastcalView = { nv, state }; // for tests, and for the curious

  // --- where things come from ---------------------------------------------------------------------

  async function ask(page, words = {}) {
    const answer = await fetch(`${page}?${new URLSearchParams(words)}`);
    if (!answer.ok) throw new Error((await answer.json()).error);
    return answer;
  }

  const served = {
    cases: async () => (await ask("cases")).json(),
    open: async (name) => (await ask("case", { case: name })).json(),
    volume: async (name, key) => (await ask("volume", { case: name, layer: key })).arrayBuffer(),
    values: async (name, at) => (await ask("values", { case: name, at: at.join() })).json(),
    dice: async (name) => (await (await ask("dice", { case: name })).json()).dice,
  };

  const held = {
    cases: async () => embedded.cases,
    open: async () => embedded.case,
    volume: async (_, key) => {
      const text = atob(embedded.volumes[key]);
      return Uint8Array.from(text, (letter) => letter.charCodeAt(0)).buffer;
    },
    values: async (_, at) => {
      const found = {};
      for (const layer of state.data.layers) {
        const value = (await image(layer)).getValue(...at);
        found[layer.key] = layer.kind === "map" && value === INVALID ? null : value;
      }
      return found;
    },
    dice: async () => null,
  };
  const source = embedded ? held : served;

  // --- layers ----------------------------------------------------------------------------------------

  const layersOf = (kind) => state.data.layers.filter((layer) => layer.kind === kind);
  const layerOf = (key) => state.data.layers.find((layer) => layer.key === key);

  function scaleOf(layer, loaded) {
    if (layer.high !== null) return [layer.low, layer.high];
    if (layer.kind === "image") return [loaded.cal_min, loaded.cal_max];
    let high = 0;
    for (const value of loaded.img) if (value > high) high = value;
    return [0, high || 1];
  }

  async function image(layer) {
    if (state.images.has(layer.key)) return state.images.get(layer.key);
    const name = `${layer.key.replaceAll("/", "_")}${embedded ? ".nii.gz" : ".nii"}`;
    const bytes = await source.volume(state.name, layer.key);
    const file = new File([bytes], name);
    const loaded = await NVImage.loadFromFile({ file, name, colormap: layer.kind === "map" ? "inferno" : "gray" });
    if (layer.kind === "labels" || layer.kind === "error") {
      const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ["background"] };
      for (const { value, name: label, colour } of layer.values) {
        const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
        for (const [list, item] of [["R", r], ["G", g], ["B", b], ["A", 255], ["I", value], ["labels", label]]) table[list].push(item);
      }
      loaded.setColormapLabel(table);
    } else {
      [loaded.cal_min, loaded.cal_max] = scaleOf(layer, loaded);
      layer.high = loaded.cal_max;
      layer.low = loaded.cal_min;
      // The colours keep their meaning when the threshold moves: they go from zero to the top.
      if (layer.kind === "map") loaded.colormapType = 1;
    }
    state.images.set(layer.key, loaded);
    return loaded;
  }

  /** The layers in the order of drawing. */
  function stack() {
    const keys = [state.chosen.image];
    if (state.chosen.map) keys.push(state.chosen.map);
    for (const key of ["prediction", "reference", "error"]) if (layerOf(key)) keys.push(key);
    return keys.map(layerOf);
  }

  const switchOf = (layer) => (layer.kind === "map" ? "map" : layer.key);

  function opacityOf(layer) {
    if (layer.kind === "image") return 1;
    if (state.hidden || !state.shown[switchOf(layer)]) return 0;
    return state.opacity[switchOf(layer)] ?? OPACITY[layer.kind];
  }

  function thresholdOf(layer) {
    return state.threshold[layer.key] ?? 0.1 * layer.high;
  }

  function apply() {
    for (const layer of stack()) {
      const loaded = state.images.get(layer.key);
      if (!loaded) continue;
      loaded.opacity = opacityOf(layer);
      if (layer.kind === "map") loaded.cal_min = Math.max(thresholdOf(layer), 1e-6);
    }
    nv.updateGLVolume();
  }

  /** Load what is to be drawn, and draw it. */
  async function draw() {
    const turn = state.turn;
    const layers = stack();
    const loaded = [];
    for (const layer of layers) {
      loaded.push(await image(layer));
      if (turn !== state.turn) return;
    }
    // All at once: addVolume would draw everything anew for each of them.
    Object.assign(nv, { volumes: loaded, back: loaded[0], overlays: loaded.slice(1) });
    apply();
  }

  // --- cases -----------------------------------------------------------------------------------------

  function say(text, failed = false) {
    byId("status").textContent = text;
    byId("status").classList.toggle("failed", failed);
  }

  async function show(name) {
    const turn = ++state.turn;
    say(`Opening ${name} ...`);
    try {
      const data = await source.open(name);
      if (turn !== state.turn) return;
      Object.assign(state, { name, data, images: new Map(), visit: { errors: -1, uncertain: -1 } });
      if (!layerOf(state.chosen.image)) state.chosen.image = layersOf("image")[0].key;
      if (!layerOf(state.chosen.map)) state.chosen.map = data.uncertainty ?? layersOf("map")[0]?.key ?? null;
      await draw();
      if (turn !== state.turn) return;
      controls();
      list();
      go(data.start);
      const [x, y, z] = data.file_shape;
      const words = [`${x} x ${y} x ${z} voxels of ${data.spacing.join(" x ")} mm`];
      if (layerOf("error")) words.push(`${data.errors.length} errors`);
      if (data.uncertainty) words.push(`${data.uncertain.length} uncertain places`);
      say(`${name}: ${words.join(", ")}`);
      document.body.dataset.ready = name;
    } catch (error) {
      if (turn === state.turn) say(error.message, true);
    }
  }

  const ORDERS = {
    uncertainty: ["uncertainty", (a, b) => b - a, (v) => v.toFixed(3)],
    quality: ["predicted Dice", (a, b) => a - b, (v) => v.toFixed(3)],
    dice: ["Dice", (a, b) => a - b, (v) => v.toFixed(3)],
    name: ["name", null, () => ""],
  };

  function sorted() {
    const key = byId("order").value;
    const compare = ORDERS[key][1];
    const name = (a, b) => a.case.localeCompare(b.case, undefined, { numeric: true });
    if (!compare) return [...state.rows].sort(name);
    const known = (row) => row[key] !== null && row[key] !== undefined;
    return [...state.rows].sort((a, b) => {
      if (known(a) && known(b)) return compare(a[key], b[key]) || name(a, b);
      return known(b) - known(a) || name(a, b);
    });
  }

  function list() {
    const key = byId("order").value;
    const rows = sorted().map((row) => {
      const item = document.createElement("li");
      const button = item.appendChild(document.createElement("button"));
      button.type = "button";
      button.setAttribute("aria-current", String(row.case === state.name));
      button.append(text("span", row.case), text("span", row[key] == null || key === "name" ? "" : ORDERS[key][2](row[key])));
      button.addEventListener("click", () => show(row.case));
      return item;
    });
    byId("cases").replaceChildren(...rows);
    byId("cases").querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const names = sorted().map((row) => row.case);
    const next = names[(names.indexOf(state.name) + by + names.length) % names.length];
    if (next !== state.name) show(next);
  }

  /** Ask for the Dice of one case after the other, as each of them reads two files. */
  async function askDice() {
    for (const row of state.rows) {
      try {
        row.dice = await source.dice(row.case);
      } catch {
        row.dice = null; // the case says what is wrong when it is opened
      }
      if (byId("order").value === "dice") list();
    }
  }

  // --- controls --------------------------------------------------------------------------------------

  function text(tag, content) {
    const element = document.createElement(tag);
    element.textContent = content;
    return element;
  }

  function slider(title, value, high, show, changed) {
    const row = text("label", "");
    row.className = "row";
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: 0, max: high, step: high / 100, value });
    const output = text("output", show(value));
    input.addEventListener("input", () => {
      output.textContent = show(Number(input.value));
      changed(Number(input.value));
      apply();
    });
    row.append(text("span", title), input, output);
    return row;
  }

  function choice(title, layers, key, changed) {
    const row = text("label", `${title} `);
    const select = row.appendChild(document.createElement("select"));
    for (const layer of layers) select.add(new Option(layer.title, layer.key, false, layer.key === key));
    select.addEventListener("change", async () => {
      changed(select.value);
      try {
        await draw();
        controls();
      } catch (error) {
        say(error.message, true);
      }
    });
    return row;
  }

  function controls() {
    const panel = [];
    if (layersOf("image").length > 1) {
      const set = document.createElement("fieldset");
      set.append(choice("Image", layersOf("image"), state.chosen.image, (key) => (state.chosen.image = key)));
      panel.push(set);
    }
    for (const layer of stack().slice(1)) {
      const set = document.createElement("fieldset");
      const key = switchOf(layer);
      const legend = set.appendChild(document.createElement("legend"));
      const label = legend.appendChild(document.createElement("label"));
      const box = document.createElement("input");
      Object.assign(box, { type: "checkbox", checked: state.shown[key] });
      box.addEventListener("change", () => {
        state.shown[key] = box.checked;
        apply();
      });
      label.append(box, ` ${layer.title}`);
      const maps = layersOf("map");
      if (layer.kind === "map" && maps.length > 1) {
        set.append(choice("Map", maps, layer.key, (value) => (state.chosen.map = value)));
      }
      const percent = (value) => `${Math.round(100 * value)} %`;
      const opacity = state.opacity[key] ?? OPACITY[layer.kind];
      set.append(slider("Opacity", opacity, 1, percent, (value) => (state.opacity[key] = value)));
      if (layer.kind === "map") {
        const show = (value) => `${value.toPrecision(2)} ${layer.unit}`;
        set.append(slider("Threshold", thresholdOf(layer), layer.high, show, (value) => (state.threshold[layer.key] = value)));
        const scale = set.appendChild(document.createElement("div"));
        scale.className = "scale";
        scale.title = `0 to ${layer.high.toPrecision(3)} ${layer.unit}`;
      } else {
        const names = set.appendChild(document.createElement("p"));
        names.className = "legend";
        for (const { name, colour } of layer.values) {
          const entry = text("span", "");
          const swatch = entry.appendChild(document.createElement("i"));
          swatch.style.background = colour;
          entry.append(name);
          names.append(entry);
        }
      }
      panel.push(set);
    }
    byId("layers").replaceChildren(...panel);
  }

  // --- the crosshair ---------------------------------------------------------------------------------

  const here = () => nv.frac2vox(nv.scene.crosshairPos);

  function go(voxel) {
    nv.scene.crosshairPos = nv.vox2frac(voxel);
    nv.createOnLocationChange();
    nv.updateGLVolume();
  }

  function move(axis, by) {
    const voxel = [...here()];
    voxel[axis] = Math.min(Math.max(voxel[axis] + by, 0), state.data.shape[axis] - 1);
    go(voxel);
  }

  function visit(places, by) {
    const found = state.data[places];
    if (!found.length) return;
    const from = state.visit[places];
    state.visit[places] = from < 0 ? (by > 0 ? 0 : found.length - 1) : (from + by + found.length) % found.length;
    go(found[state.visit[places]]);
    const what = places === "errors" ? "Error" : "Uncertain cluster";
    say(`${what} ${state.visit[places] + 1} of ${found.length}`);
  }

  function shown(layer, value) {
    if (value === null || value === undefined) return "invalid";
    if (layer.kind === "labels") return layer.values.find((one) => one.value === value)?.name ?? (value ? `label ${value}` : "background");
    if (layer.kind === "error") return layer.values.find((one) => one.value === value)?.name ?? "none";
    if (layer.kind === "image") return String(Number(value.toPrecision(5)));
    return `${value.toFixed(3)} ${layer.unit}`;
  }

  function votes(value) {
    const { members } = state.data;
    if (!members) return `${(100 * (1 - value)).toFixed(0)} % agree`;
    return `${Math.round(members * (1 - value))} of ${members} agree`;
  }

  let asked = 0;
  async function read() {
    const number = ++asked;
    const voxel = here();
    const { data } = state;
    try {
      const values = await source.values(state.name, voxel);
      if (number !== asked || data !== state.data) return;
      const index = data.axes.map(([axis, flip], n) => (flip > 0 ? voxel[axis] : data.file_shape[n] - 1 - voxel[axis]));
      const mm = data.affine.slice(0, 3).map((row) => row[0] * voxel[0] + row[1] * voxel[1] + row[2] * voxel[2] + row[3]);
      const rows = [["Voxel", index.join(", ")], ["RAS mm", mm.map((value) => value.toFixed(1)).join(", ")]];
      for (const layer of data.layers) {
        rows.push([layer.title, shown(layer, values[layer.key])]);
        if (layer.key === "disagreement" && values[layer.key] !== null) rows.push(["Votes", votes(values[layer.key])]);
      }
      const body = rows.map(([title, value]) => {
        const row = document.createElement("tr");
        row.append(text("td", title), text("td", value));
        return row;
      });
      byId("readout").tBodies[0].replaceChildren(...body);
    } catch (error) {
      say(error.message, true);
    }
  }

  let waiting = 0;
  nv.onLocationChange = () => {
    clearTimeout(waiting);
    waiting = setTimeout(read, 40);
  };

  // In radiological pictures the patient's right is on the left, so that x grows to the left.
  const ACROSS = { 2: [[0, -1], [1, 1]], 1: [[0, -1], [2, 1]], 0: [[1, 1], [2, 1]] };

  function key(event) {
    if (!state.data || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select");
    const [[right, sign], [up]] = ACROSS[state.plane];
    const acts = {
      n: () => step(1),
      p: () => step(-1),
      e: () => visit("errors", event.shiftKey ? -1 : 1),
      u: () => visit("uncertain", event.shiftKey ? -1 : 1),
    };
    const moves = {
      ArrowRight: () => move(right, sign),
      ArrowLeft: () => move(right, -sign),
      ArrowUp: () => move(up, 1),
      ArrowDown: () => move(up, -1),
      PageUp: () => move(state.plane, 1),
      PageDown: () => move(state.plane, -1),
    };
    const button = event.target.closest?.("button");
    let act = acts[event.key.toLowerCase()];
    // Elements that have a use of their own for these keys keep it.
    if (!typing) act ??= moves[event.key];
    if (!typing && !button && event.key === " ") {
      act = () => {
        state.hidden = !state.hidden;
        apply();
      };
    }
    if (typing?.tagName === "SELECT") act = undefined;
    if (act) {
      act();
      event.preventDefault();
    }
    // NiiVue has keys of its own, which would do something else besides.
    if (event.target === byId("canvas") && event.key !== "Tab") event.stopPropagation();
  }

  /** Which plane the mouse is in. */
  function clicked() {
    const tile = nv.screenSlices?.find(({ leftTopWidthHeight: [x, y, w, h] }) => {
      const [mx, my] = nv.mousePos ?? [nv.uiData?.mousePos?.[0], nv.uiData?.mousePos?.[1]];
      return mx >= x && mx < x + w && my >= y && my < y + h;
    });
    if (tile && tile.axCorSag <= 2) state.plane = [2, 1, 0][tile.axCorSag];
  }

  async function start() {
    globalThis.addEventListener("keydown", key, true);
    globalThis.addEventListener("keyup", (event) => event.target === byId("canvas") && event.stopPropagation(), true);
    try {
      await nv.attachToCanvas(byId("canvas"));
    } catch (error) {
      return say(`This browser cannot draw: ${error.message}`, true);
    }
    byId("canvas").addEventListener("pointerup", clicked);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    try {
      const found = await source.cases();
      state.rows = found.rows;
      byId("title").textContent = found.title;
      const has = (name) => name === "name" || (name === "dice" ? found.dice : found.rows.some((row) => row[name] !== null));
      for (const name of ["quality", "uncertainty", "dice", "name"]) if (has(name)) byId("order").add(new Option(ORDERS[name][0], name));
      byId("order").addEventListener("change", list);
      await show(found.chosen);
      if (found.dice) askDice();
    } catch (error) {
      say(error.message, true);
    }
  }

  start();
})();
