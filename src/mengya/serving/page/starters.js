/**
 * What to ask first: takes a model, gives buttons with the server's own starters, or with some that
 * suit the kind of model.
 */
import { el } from "./kit/dom.js";
import { t } from "./kit/i18n.js";

/**
 * @param {import("./api.js").Model | undefined} model
 * @param {(text: string) => void} choose
 */
export function starterButtons(model, choose) {
  return startersOf(model).map((text) =>
    el("button", { type: "button", class: "starter", onclick: () => choose(text) }, text),
  );
}

/** @param {import("./api.js").Model | undefined} model @returns {string[]} */
function startersOf(model) {
  if (model?.starters.length) return model.starters;
  return model?.kind === "base"
    ? [t("beginning1"), t("beginning2"), t("beginning3"), t("beginning4")]
    : [t("starter1"), t("starter2"), t("starter3"), t("starter4")];
}
