"use strict";

SwaggerUIBundle({
  dom_id: "#swagger-ui",
  // Relative to the page. The server URL in the document is relative to the document.
  url: new URL("openapi.json", document.baseURI).href,
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  // The default sends the document to a server on the internet.
  validatorUrl: null,
});
