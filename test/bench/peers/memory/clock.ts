/** Sends the Worker under test one scheduled event for each request: plain workerd has no cron of its own. */
export default {
  async fetch(_request, { WORKER }) {
    const { outcome } = await WORKER.scheduled({ cron: '* * * * *', scheduledTime: new Date() });
    return new Response(outcome, { status: outcome === 'ok' ? 200 : 500 });
  },
} satisfies ExportedHandler<{
  WORKER: { scheduled(event: { cron: string; scheduledTime: Date }): Promise<{ outcome: string }> };
}>;
