/**
 * The door that JupyterLab opens: a module federation container, written by hand, so that nobody needs a build step.
 *
 * JupyterLab calls `init` with what its packages share, then `get` for the modules that `package.json` names. All else
 * are plain ES modules beside this file; `script/` are the view modules of the widget.
 */
(() => {
  const entry = document.currentScript.src;
  /** @type {Record<string, Record<string, {get: () => Promise<() => any>}>>} package → version → its module */
  let scope = {};

  /** One of JupyterLab's own packages, the newest that is there. @param {string} name */
  async function share(name) {
    const versions = Object.keys(scope[name] ?? {});
    if (!versions.length) throw new Error(`llm-magic: this JupyterLab shares no ${name}`);
    versions.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    return (await scope[name][versions.at(-1)].get())();
  }

  const load = (name) => import(new URL(name, entry).href);
  const modules = {
    "./extension": async () => (await load("extension.js")).makePlugins(share),
    "./mime": async () => (await load("renderer.js")).makeMimePlugins(share),
  };

  (window._JUPYTERLAB ??= {})["llm-magic"] = {
    init(shared) {
      scope = shared;
    },
    async get(name) {
      const plugins = await modules[name]();
      return () => ({ __esModule: true, default: plugins });
    },
  };
})();
