import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["_build/", "book/assets/vendor/", ".venv/"] },
  js.configs.recommended,
  {
    rules: {
      eqeqeq: "error",
      "max-lines-per-function": ["error", 80],
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
    },
  },
  {
    files: ["qkutils/views/front/**", "book/assets/**"],
    languageOptions: { globals: globals.browser },
  },
  { files: ["tests/front/**"], languageOptions: { globals: globals.node } },
];
