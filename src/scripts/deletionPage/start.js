// A script of its own: the page's policy allows none in the HTML.
const [requestForm, confirmForm, email, token, status] = ['request', 'confirm', 'email', 'token', 'status'].map((id) =>
  document.getElementById(id),
);

const FAILURES = {
  ONE_TIME_TOKEN_INVALID: 'This link or code was used, was replaced, or has expired. Ask for another mail.',
  LAST_ADMINISTRATOR: 'This is the only administrator. Make another account an administrator first.',
  RATE_LIMITED: 'Too many requests. Try again later.',
  VALIDATION_FAILED: 'This cannot be right. Check what you have entered.',
};
const UNKNOWN_FAILURE = 'It did not work. Try again later.';

/** @returns `undefined` on success, otherwise the message to show */
async function post(path, body, key) {
  try {
    const response = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `"${key}"` },
      body: JSON.stringify(body),
    });
    if (response.ok) return undefined;
    const { code } = await response.json();
    return FAILURES[code] ?? UNKNOWN_FAILURE;
  } catch {
    return UNKNOWN_FAILURE;
  }
}

/** One key for what is entered now: a repeat after a lost response finds the first one. */
function onSubmit(form, path, bodyOf, success) {
  let key = crypto.randomUUID();
  form.addEventListener('input', () => (key = crypto.randomUUID()));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = form.querySelector('button');
    button.disabled = true;
    status.textContent = 'One moment …';
    const failure = await post(path, bodyOf(), key);
    button.disabled = false;
    status.textContent = failure ?? success;
    if (failure === undefined) form.reset();
  });
}

onSubmit(
  requestForm,
  '/v1/auth/deletion',
  () => ({ email: email.value }),
  'If this address has an account, a mail is on its way to it.',
);
onSubmit(confirmForm, '/v1/auth/deletion/confirm', () => ({ token: token.value.trim() }), 'Your account is deleted.');

// The link of the mail: `/delete-account#token=…`. Programs that open links in mails delete nothing: the button does.
const linked = new URLSearchParams(location.hash.slice(1)).get('token');
if (linked !== null) {
  token.value = linked;
  history.replaceState(null, '', location.pathname);
  confirmForm.querySelector('button').focus();
}
