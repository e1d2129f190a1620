/** What needs the application itself: where notebooks are, and ghost text in their cells. */

import { places } from "./branching.js";
import { Links, Provider } from "./completion.js";

/** @param {(name: string) => Promise<any>} share JupyterLab's own packages */
export async function makePlugins(share) {
  const { INotebookTracker } = await share("@jupyterlab/notebook");
  const { ICompletionProviderManager } = await share("@jupyterlab/completer");
  return [
    {
      id: "llm-magic:notebooks",
      description: "Lets saved answers of llm_magic branch through their notebook's kernel.",
      autoStart: true,
      optional: [INotebookTracker],
      activate: (app, tracker) => {
        places.tracker = tracker;
      },
    },
    {
      id: "llm-magic:ghost-text",
      description: "Ghost text from the model in the notebook's kernel, once %llm complete on has switched it on.",
      autoStart: true,
      optional: [INotebookTracker, ICompletionProviderManager],
      activate: (app, tracker, manager) => {
        if (!tracker || !manager) return; // an application without notebooks
        const links = new Links();
        manager.registerInlineProvider(new Provider(links));
        const attach = (kernel) => kernel && links.attach(kernel).catch(console.warn);
        const follow = ({ sessionContext }) => {
          sessionContext.kernelChanged.connect((_, { newValue }) => attach(newValue));
          attach(sessionContext.session?.kernel);
        };
        tracker.forEach(follow);
        tracker.widgetAdded.connect((_, panel) => follow(panel));
      },
    },
  ];
}
