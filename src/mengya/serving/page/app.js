/**
 * Starts the page: puts the parts together and wires what belongs to none of them (models,
 * language, theme, modes, global keys).
 */
import { listModels } from "./api.js";
import { Chat } from "./chat/chat.js";
import { Completion } from "./completion/completion.js";
import { askKeyWhenNeeded, notice } from "./kit/dialogs.js";
import { append, byId, el, icon } from "./kit/dom.js";
import { addWords, codeWords, problemWords, setLanguage, t } from "./kit/i18n.js";
import { isTouch, isTyping } from "./kit/keys.js";
import { ServerProblem } from "./kit/server.js";
import { Drawer } from "./settings/drawer.js";
import { Sidebar } from "./sidebar.js";
import { Conversations, loadSettings, saveSettings } from "./store/store.js";
import { EN } from "./words/en.js";
import { ZH } from "./words/zh.js";

const settings = loadSettings();
const conversations = new Conversations();
/** @type {import("./api.js").Model[]} */
let models = [];

addWords(ZH, EN);
askKeyWhenNeeded();
document.documentElement.dataset.theme = settings.theme;
setLanguage(settings.language);
append(byId("send"), [icon("send")]);
append(byId("stop"), [icon("stop")]);
append(byId("to-end"), [icon("down")]);
append(byId("compare"), [icon("compare")]);
append(byId("open-settings"), [icon("tune")]);
append(byId("close-settings"), [icon("close")]);

/** @param {string} id */
function modelOf(id) {
  return models.find((model) => model.id === id);
}

function keep() {
  try {
    saveSettings(settings);
  } catch (error) {
    if (!(error instanceof ServerProblem)) throw error;
    notice(problemWords(error.problem), "trouble");
  }
}

/** What the drawer changes may be part of the prompt. */
function keepFields() {
  keep();
  chat.gauge.refresh();
}

const chat = new Chat(
  conversations,
  settings,
  () => {
    settings.current = chat.current.turns.length ? chat.current.id : null;
    keep();
    sidebar.draw();
    drawModels();
    drawTitle();
    if (drawer.panel.hidden || !drawer.panel.contains(document.activeElement)) drawer.draw();
  },
  () => loadModels(),
  modelOf,
  learnContext,
);
const completion = new Completion(settings, () => modelOf(settings.models[0]), keep);
const sidebar = new Sidebar(conversations, chat);
const system = {
  get: () => chat.current.system,
  /** @param {string} text */
  set: (text) => {
    chat.current.system = text;
    settings.system = text;
    chat.save(chat.current);
    keepFields();
  },
};
const drawer = new Drawer(settings, system, keepFields);

// Models

function drawModels() {
  const comparing = chat.current.models.length > 1 && settings.mode === "chat";
  const chosen = settings.mode === "chat" ? chat.current.models : settings.models;
  for (const [lane, id] of [
    [0, "model"],
    [1, "second-model"],
  ]) {
    const options = models.map((model) =>
      el("option", { value: model.id, selected: model.id === chosen[Number(lane)] }, model.id),
    );
    byId(String(id)).replaceChildren(...(options.length ? options : [el("option", {}, t("noModels"))]));
  }
  byId("second-model").hidden = !comparing;
  byId("compare").hidden = settings.mode !== "chat" || models.length < 2;
  byId("compare").setAttribute("aria-pressed", String(comparing));
}

/** @param {string[]} chosen */
function chooseModels(chosen) {
  settings.models = chosen;
  chat.current.models = [...chosen];
  chat.save(chat.current);
  if (!chat.isRunning) chat.draw();
  openForKind();
  drawModels();
  completion.draw();
  keep();
}

function isBaseAlone() {
  const chosen = settings.mode === "chat" ? chat.current.models : settings.models.slice(0, 1);
  return chosen.length === 1 && modelOf(chosen[0])?.kind === "base";
}

/** A base model was not trained to chat: completion opens, unless a conversation with it is open. */
function openForKind() {
  if (settings.mode === "chat" && isBaseAlone() && !chat.current.turns.length) setMode("completion");
  noteBaseModel();
}

/** Says that the model was not trained to chat. */
function noteBaseModel() {
  const isBase = isBaseAlone();
  byId("base-note").hidden = !isBase || settings.mode === "chat";
  byId("base-note").textContent = t("baseModelOpens", { model: settings.models[0] ?? "" });
  if (settings.mode === "chat" && isBase) notice(t("baseModelNote"));
}

for (const id of ["model", "second-model"]) {
  byId(id).addEventListener("change", () => {
    const both = chat.current.models.length > 1 && settings.mode === "chat";
    chooseModels(both ? [byId("model").value, byId("second-model").value] : [byId("model").value]);
  });
}
byId("compare").addEventListener("click", () => {
  const [one, ...others] = chat.current.models;
  const second = models.find((model) => model.id !== one)?.id;
  chooseModels(others.length || !second ? [one] : [one, second]);
});

/** Asks for the models until the server answers; it may still be loading one. */
async function loadModels() {
  try {
    models = await listModels();
  } catch (error) {
    if (!(error instanceof ServerProblem)) throw error;
    const { problem } = error;
    const detail = problem.kind === "refused" && !codeWords(problem) ? problem.detail : "";
    notice(`${problemWords(problem)} ${detail}`, "trouble");
    if (problem.kind === "loading") setTimeout(loadModels, 1000 * (problem.wait ?? 3));
    return;
  }
  byId("notices").replaceChildren();
  const known = new Set(models.map((model) => model.id));
  const fallback = (models.find(({ kind }) => kind === "chat") ?? models[0])?.id;
  for (const holder of [settings, chat.current]) {
    const kept = holder.models.filter((id) => known.has(id));
    holder.models = kept.length || !fallback ? kept : [fallback];
  }
  openForKind();
  drawModels();
  chat.draw();
  completion.draw();
}

/** Models whose context the server was asked for after they had answered. @type {Set<string>} */
const asked = new Set();

/** A server that loads models on demand knows a context once the model is there. @param {string} id */
async function learnContext(id) {
  if (modelOf(id)?.context !== null || asked.has(id)) return;
  asked.add(id);
  try {
    models = await listModels();
  } catch (error) {
    if (!(error instanceof ServerProblem)) throw error;
    return; // the gauge stays hidden
  }
  drawModels();
  chat.gauge.refresh();
}

// Title, language, theme, modes

function drawTitle() {
  const name = settings.mode === "chat" ? chat.current.title : t("completionTitle");
  document.title = name ? `${name} · ${t("title")}` : t("title");
}

function drawToggles() {
  byId("language").textContent = settings.language === "zh" ? "English" : "中文";
  const names = { auto: "themeAuto", light: "themeLight", dark: "themeDark" };
  byId("theme").textContent = t(names[settings.theme] ?? "themeAuto");
}

byId("language").addEventListener("click", () => {
  settings.language = settings.language === "zh" ? "en" : "zh";
  setLanguage(settings.language);
  drawToggles();
  drawModels();
  drawTitle();
  noteBaseModel();
  drawer.draw();
  sidebar.draw();
  chat.draw();
  completion.draw();
  keep();
});

byId("theme").addEventListener("click", () => {
  const order = /** @type {const} */ (["auto", "light", "dark"]);
  settings.theme = order[(order.indexOf(settings.theme) + 1) % order.length];
  document.documentElement.dataset.theme = settings.theme;
  drawToggles();
  keep();
});

/** @param {"chat" | "completion"} mode */
function setMode(mode) {
  settings.mode = mode;
  document.body.dataset.mode = mode;
  byId("chat").hidden = mode !== "chat";
  byId("completion").hidden = mode !== "completion";
  for (const name of ["chat", "completion"]) {
    byId(`${name}-mode`).setAttribute("aria-pressed", String(name === mode));
  }
  drawModels();
  drawTitle();
  keep();
  if (mode === "completion") completion.fit();
  if (!isTouch()) byId(mode === "chat" ? "message" : "prompt").focus();
}
byId("chat-mode").addEventListener("click", () => {
  setMode("chat");
  noteBaseModel();
});
byId("completion-mode").addEventListener("click", () => {
  setMode("completion");
  noteBaseModel();
  sidebar.slide(false);
});

// Keys and other tabs

/** @param {KeyboardEvent} event */
function hasModifier(event) {
  return event.ctrlKey || event.metaKey || event.altKey;
}

addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]") || event.isComposing) return;
  if (event.key === "Escape") {
    if (document.body.classList.contains("menu-open")) sidebar.slide(false);
    else if (chat.isRunning && settings.mode === "chat") chat.stop();
    else if (completion.stopper) completion.stop();
    else if (!drawer.panel.hidden) drawer.toggle(false);
  } else if (event.key === "/" && !isTyping(event.target) && !hasModifier(event)) {
    event.preventDefault();
    byId(settings.mode === "chat" ? "message" : "prompt").focus();
  }
});

addEventListener("storage", (event) => {
  const id = conversations.follow(event);
  if (id === chat.current.id && !chat.isRunning) chat.open(conversations.byId.get(id) ?? null);
  else if (id) sidebar.draw();
});

drawToggles();
setMode(settings.mode);
chat.open(conversations.byId.get(settings.current ?? "") ?? null);
loadModels();
