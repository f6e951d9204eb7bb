// A script of its own: the page's policy allows none in the HTML.
window.SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  tryItOutEnabled: true,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
  // It would send the document to a server on the internet.
  validatorUrl: null,
});
