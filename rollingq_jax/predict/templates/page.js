"use strict";
(() => {
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const find = (name) => document.getElementById(name);

  // Colours: as the system has them, until the reader turns them over.
  let chosen = null;
  function paint() {
    const dark = chosen ?? system.matches;
    root.toggleAttribute("data-dark", dark);
    const said = chosen === null ? "as the system has them" : dark ? "dark" : "light";
    find("theme").setAttribute("aria-label", `Colours: ${said}`);
  }
  find("theme").addEventListener("click", () => {
    chosen = !(chosen ?? system.matches);
    paint();
  });
  system.addEventListener("change", paint);
  paint();

  const form = find("form");
  if (!form) return;
  const modalities = form.dataset.modalities.split(" ");
  const text = find("text");
  let files = [];

  // A file by itself is a clip; of several, each is a modality.
  function fieldOf(file) {
    if (files.length === 1 && !(text && text.value.trim())) return "clip";
    const sight = /^(image|video)\//.test(file.type) || /\.(png|jpe?g|mp4|webm|mkv|avi|mov)$/i.test(file.name);
    return sight ? "visual" : "audio";
  }

  function say(words, failed = false) {
    find("status").textContent = words;
    find("status").classList.toggle("failed", failed);
  }

  function sizeOf(bytes) {
    if (bytes < 1e6) return `${Math.ceil(bytes / 1e3)} kB`;
    return `${(bytes / 1e6).toFixed(1)} MB`;
  }

  function show() {
    find("chosen").replaceChildren(
      ...files.map((file) => {
        const item = document.createElement("li");
        item.textContent = file.name;
        const size = document.createElement("small");
        size.textContent = sizeOf(file.size);
        item.append(size);
        return item;
      }),
    );
    find("predict").disabled = !files.length && !(text && text.value.trim());
  }

  function take(list) {
    files = [...list];
    find("result").hidden = true;
    say("");
    show();
    if (files.length && !text) predict();
  }

  function problem() {
    const total = files.reduce((sum, file) => sum + file.size, 0);
    if (total > 1e6 * Number(form.dataset.max)) {
      return `That is more than ${form.dataset.max} MB.`;
    }
    const fields = files.map(fieldOf);
    if (new Set(fields).size < fields.length) {
      return `Two files would be the ${fields.find((x, i) => fields.indexOf(x) < i)} of the clip; choose one of each modality.`;
    }
    const unknown = fields.find((x) => x !== "clip" && !modalities.includes(x));
    return unknown ? `The model takes no ${unknown}.` : "";
  }

  async function predict() {
    const wrong = problem();
    if (wrong) return say(wrong, true);
    const body = new FormData();
    if (text && text.value.trim()) body.append("text", text.value);
    for (const file of files) body.append(fieldOf(file), file);
    find("predict").disabled = true;
    say("Looking and listening …");
    try {
      const answer = await fetch("card", { method: "POST", body });
      if (!answer.ok) throw new Error((await answer.json()).detail);
      // Made by the service, which escapes what a model or a file is called.
      find("result").innerHTML = await answer.text();
      find("result").hidden = false;
      say("");
    } catch (error) {
      find("result").hidden = true;
      const lost = error instanceof TypeError;
      say(lost ? "The service cannot be reached." : error.message, true);
    }
    show();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    predict();
  });
  find("files").addEventListener("change", (event) => {
    take(event.target.files);
    // The same file again is a change too.
    event.target.value = "";
  });
  if (text) text.addEventListener("input", show);
  find("result").addEventListener("change", (event) => {
    if (event.target.id === "attention") {
      find("result").classList.toggle("plain", !event.target.checked);
    }
  });
  const drop = find("drop");
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    if (event.dataTransfer.files.length) take(event.dataTransfer.files);
  });
})();
