"use strict";

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  // Relative to the page. The servers in the document are relative to the document.
  url: new URL("openapi.json", document.baseURI).href,
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // Its own default asks a server on the internet.
  validatorUrl: null,
});
