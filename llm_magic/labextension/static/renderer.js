/** Draws saved answers: in any notebook, trusted or not, with or without a kernel, by the view modules of the widget. */

import { Branching, findPanel } from "./branching.js";
import { MIME, readSaved } from "./saved.js";
import { drawAnswer } from "./script/answer.js";
import { make } from "./script/dom.js";

/** @param {(name: string) => Promise<any>} share JupyterLab's own packages */
export async function makeMimePlugins(share) {
  const { Panel, Widget } = await share("@lumino/widgets");
  addStyles();

  class SavedAnswer extends Panel {
    /** @param {any} model an output: its data by MIME types */
    async renderModel(model) {
      this.#clear();
      const picture = new Widget();
      this.addWidget(picture);
      let session;
      try {
        session = readSaved(model.data[MIME]);
      } catch (error) {
        const text = String(model.data["text/plain"] ?? "");
        picture.node.append(make("pre", {}, text), make("div", { role: "alert" }, `llm_magic cannot draw it: ${error.message}`));
        return;
      }
      this.takeAway = drawAnswer(picture.node, session, {
        isSaved: true,
        whatIf: () => ({}),
        interrupt() {},
        send: (message) => {
          if (message.kind === "branch") this.#branch(model, picture, session, message);
        },
      });
    }

    /** Put a live view in the picture's place, where a kernel has one. */
    async #branch(model, picture, session, message) {
      const { node, index, id, text } = message;
      const key = model.data[MIME].key;
      const panel = findPanel(this.node);
      this.branching?.close();
      const branching = (this.branching = new Branching(panel?.sessionContext?.session?.kernel, (kept) => {
        model.setData({ data: { ...model.data, ...kept } });
      }));
      try {
        const view = await branching.start({ key, text: node, index, token: id ?? text });
        const widget = panel.content.rendermime.createRenderer(view.mime);
        await widget.renderModel(panel.content.rendermime.createModel({ data: { [view.mime]: view.data }, trusted: true }));
        picture.hide();
        this.addWidget(widget);
      } catch (error) {
        session.tell("problem", { text: error.message });
      }
    }

    #clear() {
      this.takeAway?.();
      this.takeAway = null;
      this.branching?.close();
      this.branching = null;
      for (const widget of [...this.widgets]) widget.dispose();
    }

    dispose() {
      if (!this.isDisposed) this.#clear();
      super.dispose();
    }
  }

  return [{
    id: "llm-magic:saved-answers",
    description: "Draws the answers that llm_magic has saved in a notebook.",
    rendererFactory: { safe: true, mimeTypes: [MIME], createRenderer: () => new SavedAnswer() },
    rank: 0, // before the HTML that is saved beside it for everybody else
    dataType: "json",
  }];
}

function addStyles() {
  const href = new URL("script/answer.css", import.meta.url).href;
  document.head.append(make("link", { rel: "stylesheet", href }));
}
