// A small sale with the generated client, at the URL that is its argument. Prints what it requested, for the proof.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Issuance = components["schemas"]["IssuanceView"];
type Coupon = components["schemas"]["CouponView"];

const api = createClient<paths>({ baseUrl: process.argv[2] ?? "" });
const FINAL = ["issued", "refused", "dead"];
const WINNER = Number.MAX_SAFE_INTEGER;
const LATE = 7;

async function createCoupon(name: string): Promise<Coupon> {
  const { data, error, response } = await api.POST("/coupons", { body: { name, quantity: 1, waitlist: 0 } });
  assert(data, JSON.stringify(error));
  assert.equal(response.headers.get("location"), `/coupons/${data.id}`);
  return data;
}

async function requestCoupon(coupon: number, user: number) {
  return api.POST("/coupons/{coupon_id}/issuances", {
    params: { path: { coupon_id: coupon } },
    body: { user_id: user },
  });
}

async function waitUntilFinal(requestId: string): Promise<Issuance> {
  for (;;) {
    const { data, error } = await api.GET("/issuances/{request_id}", { params: { path: { request_id: requestId } } });
    assert(data, JSON.stringify(error));
    if (FINAL.includes(data.state)) return data;
    await setTimeout(20);
  }
}

async function listCoupons(): Promise<number[]> {
  const found: number[] = [];
  let cursor: string | null = null;
  do {
    const query: { limit: number; cursor?: string } = cursor === null ? { limit: 1 } : { limit: 1, cursor };
    const { data, error } = await api.GET("/coupons", { params: { query } });
    assert(data, JSON.stringify(error));
    assert.equal(data.coupons.length, 1);
    found.push(...data.coupons.map((coupon) => coupon.id));
    cursor = data.next;
  } while (cursor !== null);
  return found;
}

const coupon = await createCoupon("TypeScript");
const other = await createCoupon("another page");

const { data: receipt } = await requestCoupon(coupon.id, WINNER);
assert(receipt);
const issued = await waitUntilFinal(receipt.request_id);
assert.deepEqual([issued.state, issued.sequence], ["issued", 1]);

// JSON.parse has kept every id, and what JavaScript sends back is the same.
assert.deepEqual([issued.user_id, issued.coupon_id], [WINNER, coupon.id]);
const { error: repeated, response: again } = await requestCoupon(issued.coupon_id, issued.user_id);
assert.equal(repeated?.code, "duplicate");
assert.equal(again.headers.get("location"), `/issuances/${receipt.request_id}`);

const { error: refused, response } = await requestCoupon(coupon.id, LATE);
assert(refused);
assert.deepEqual([response.status, refused.code, refused.title], [409, "sold_out", "Sold out"]);
assert.match(await (await fetch(new URL(refused.type, response.url))).text(), /<h1>Sold out<\/h1>/);

// The next integer is one of many that JavaScript reads as the same number.
const { error: unsafe } = await requestCoupon(coupon.id, WINNER + 1);
assert.equal(unsafe?.code, "invalid");
assert.match(unsafe.detail, /9007199254740991/);

const listed = await listCoupons();
assert.equal(new Set(listed).size, listed.length);
assert(listed.includes(coupon.id) && listed.includes(other.id));

console.log(JSON.stringify({ coupon_id: coupon.id, users: [WINNER, LATE] }));
